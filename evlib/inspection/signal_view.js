// Channels over time on one canvas, with events as marks. The kernel sends at most a thousand bins a channel; zooming and
// dragging redraw at once from what is there, and ask the kernel for the new part a moment later.
const GUTTER = 92, RIGHT = 10, HEADER = 4, ROW = 26, AXIS = 34, STRIP = 18, SCORES = 74, REDRAW_MS = 30, TELL_MS = 400;
const FONT = '12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif', SMALL = '11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif';
// What became of an event is seen by its shape as well as by its colour; the names are markers of matplotlib.
const SHAPES = {
  o: 'M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0', v: 'M-5.5-4.5H5.5L0 5.5Z', '^': 'M-5.5 4.5H5.5L0-5.5Z', s: 'M-4.5-4.5h9v9h-9z', D: 'M0-6.5L6.5 0L0 6.5L-6.5 0Z',
  X: 'M-5.5-3L-3-5.5L0-2.5L3-5.5L5.5-3L2.5 0L5.5 3L3 5.5L0 2.5L-3 5.5L-5.5 3L-2.5 0Z',
};

function render({ model, el }) {
  const add = (tag, name, parent) => { const made = document.createElement(tag); made.className = name; parent.appendChild(made); return made; };
  const whole = add('div', 'evlib-view', el), head = add('div', 'evlib-head', whole);
  const said = add('div', 'evlib-said', head), tipLine = add('div', 'evlib-tip', head), legend = add('ul', 'evlib-legend', head);
  const box = add('div', 'evlib-signal', whole), canvas = add('canvas', '', box), told = add('div', 'evlib-hidden', whole);
  said.setAttribute('role', 'status');
  told.setAttribute('role', 'status');  // where keys lead, for screen readers
  box.tabIndex = 0;
  box.setAttribute('role', 'application');
  box.setAttribute('data-lm-suppress-shortcuts', 'true');  // JupyterLab leaves the keys to this widget
  box.setAttribute('aria-label', 'Signal: arrow keys move and scale, plus and minus zoom, comma and full stop go from mark to mark, Tab leaves');
  canvas.setAttribute('role', 'img');
  const g = canvas.getContext('2d');
  let view = [...model.get('view')], width = 0, height = 0, timer = null, wanted = false, drag = null, hover = null, moved = null;
  let signal = new Float32Array(0), ink = {}, telling = null, byKey = false;

  const shown = name => model.get(name);
  const x = t => GUTTER + (t - view[0]) / (view[1] - view[0]) * (width - GUTTER - RIGHT);
  const time = px => view[0] + (px - GUTTER) / (width - GUTTER - RIGHT) * (view[1] - view[0]);
  const rows = () => shown('rows');
  const lanesTop = () => HEADER + rows().length * ROW + 4;
  const lanesBottom = () => height - AXIS - STRIP - (shown('scores').length || shown('score_label') ? SCORES : 0);
  const rowOf = kind => Math.max(rows().findIndex(row => row.kinds.includes(kind)), 0);
  const place = mark => (moved && moved.id === mark.id ? moved.time_s : mark.time_s);

  function clamp([a, b]) {
    const all = shown('duration_s'), w = Math.min(Math.max(b - a, shown('least_s')), all);
    const start = Math.min(Math.max((a + b - w) / 2, 0), all - w);
    return [start, start + w];
  }
  function ask() {
    clearTimeout(timer);
    timer = setTimeout(() => { model.set('view', [...view]); model.save_changes(); }, REDRAW_MS);
  }
  function move(next) { view = clamp(next); ask(); redraw(); }
  function zoom(factor, at = (view[0] + view[1]) / 2) { move([at - (at - view[0]) * factor, at + (view[1] - at) * factor]); }
  function redraw() { if (!wanted) { wanted = true; requestAnimationFrame(() => { wanted = false; draw(); }); } }
  function send(name, value) { model.set(name, value); model.save_changes(); }

  function text(words, px, py, colour = ink.ink, align = 'left', font = FONT) {
    g.fillStyle = colour; g.font = font; g.textAlign = align; g.textBaseline = 'middle'; g.fillText(words, px, py);
  }
  function fit(words, room, font = FONT) {  // as much of a name as there is room for
    g.font = font;
    if (g.measureText(words).width <= room) return words;
    const letters = [...words];
    while (letters.length > 1 && g.measureText(letters.join('') + '…').width > room) letters.pop();
    return letters.join('') + '…';
  }
  function shape(name, px, py, colour, scale = 1) {
    g.save(); g.translate(px, py); g.scale(scale, scale);
    const path = new Path2D(SHAPES[name]);
    g.strokeStyle = ink.paper; g.lineWidth = 2; g.setLineDash([]); g.stroke(path);
    g.fillStyle = colour; g.fill(path); g.restore();
  }
  function hatch(left, right, top, bottom) {
    g.save(); g.beginPath(); g.rect(left, top, right - left, bottom - top); g.clip();
    for (let at = left - (bottom - top); at < right; at += 9) line(at, bottom, at + bottom - top, top, ink.faint, 0.6);
    g.restore();
  }
  function span([t0, t1, colour], left, right, top, bottom) {
    if (right <= left) return;
    if (!colour) return hatch(left, right, top, bottom);
    g.fillStyle = colour; g.fillRect(left, top, right - left, bottom - top);
  }
  function line(x0, y0, x1, y1, colour, thick = 1, dash = []) {
    g.strokeStyle = colour; g.lineWidth = thick; g.setLineDash(dash);
    g.beginPath(); g.moveTo(x0, y0); g.lineTo(x1, y1); g.stroke(); g.setLineDash([]);
  }
  function ticks(from, to, most) {
    const raw = (to - from) / most, power = 10 ** Math.floor(Math.log10(raw));
    const steps = raw >= 20 ? [30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000] : [1, 2, 5, 10].map(s => s * power);
    const step = steps.find(s => s >= raw * 0.999) || 36000, out = [];
    for (let k = Math.ceil(from / step - 1e-9); k * step <= to + 1e-9 * step; k++) out.push(k * step);
    return [out, step];
  }
  function clock(t, step) {
    if (step < 30) return t.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    const h = Math.floor(t / 3600), m = Math.floor(t / 60) % 60, s = Math.round(t % 60), two = v => String(v).padStart(2, '0');
    return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
  }
  function size(v) { return v >= 1e5 || v < 1e-3 ? v.toExponential(1) : String(Number(v.toPrecision(2))); }

  function draw() {
    width = Math.max(box.clientWidth, 318); height = shown('height');
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
      canvas.style.height = height + 'px';
    }
    const style = getComputedStyle(box);  // the colours of the page, whatever its theme
    for (const name of ['ink', 'paper', 'faint', 'grid', 'trace', 'accent']) ink[name] = style.getPropertyValue('--evlib-' + name).trim();
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.fillStyle = ink.paper; g.fillRect(0, 0, width, height);
    drawGrid(); drawSignal(); drawMarks(); drawScores(); drawStrip(); write(); tell();
    canvas.dataset.draws = Number(canvas.dataset.draws || 0) + 1;  // these two for tests
    canvas.dataset.view = view.join(' ');
  }
  function drawGrid() {
    for (const part of shown('spans'))
      span(part, Math.max(x(part[0]), GUTTER), Math.min(x(part[1]), width - RIGHT), lanesTop(), lanesBottom());
    const [at, step] = ticks(view[0], view[1], Math.max(2, (width - GUTTER - RIGHT) / 90)), bottom = height - AXIS - STRIP;
    for (const t of at) {
      line(x(t), lanesTop(), x(t), bottom + 4, ink.grid);
      g.font = SMALL;
      const words = clock(t, step), edge = width - 2 - g.measureText(words).width / 2;
      text(words, Math.min(x(t), edge), bottom + 12, ink.faint, 'center', SMALL);
    }
    line(GUTTER, bottom, width - RIGHT, bottom, ink.faint);
    text(step < 30 ? 'time (s)' : 'time (min:s)', GUTTER - 18, bottom + 12, ink.faint, 'right', SMALL);
  }
  function drawSignal() {
    const names = shown('channels'), units = shown('units'), half = shown('half'), gain = shown('gain');
    const [t0, dt, bins] = shown('grid'), n = names.length, top = lanesTop(), lane = (lanesBottom() - top) / n;
    const thick = bins && dt * (width - GUTTER) / (view[1] - view[0]) > 3 ? 1.2 : 1;
    for (let c = 0; c < n; c++) {
      const middle = top + (c + 0.5) * lane, k = lane / 2 / half[c] * gain, unit = units[c];
      line(GUTTER, middle, width - RIGHT, middle, ink.grid);
      text(fit(names[c], GUTTER - 12), GUTTER - 8, middle - (lane > 28 ? 7 : 0), ink.ink, 'right');
      if (lane > 28) text(fit(`±${size(half[c] / gain)} ${unit}`.trim(), GUTTER - 12, SMALL), GUTTER - 8, middle + 8, ink.faint, 'right', SMALL);
      if (signal.length < 2 * n * bins) continue;
      const low = signal.subarray(c * bins, (c + 1) * bins), high = signal.subarray((n + c) * bins, (n + c + 1) * bins);
      let zero = 0, seen = 0;  // the middle of what is in view; a signal without sway stays where it is
      for (let i = 0; i < bins; i++) if (low[i] === low[i]) { zero += (low[i] + high[i]) / 2; seen++; }
      zero = seen ? zero / seen : 0;
      g.save(); g.beginPath(); g.rect(GUTTER, top - 2, width - GUTTER - RIGHT, lanesBottom() - top + 4); g.clip();
      g.strokeStyle = ink.trace; g.lineWidth = thick; g.lineJoin = 'round'; g.beginPath();
      let open = false;
      const holes = [];  // where nothing was measured
      for (let i = 0; i < bins; i++) {
        const px = x(t0 + dt * i), a = middle - (low[i] - zero) * k, b = middle - (high[i] - zero) * k;
        if (a !== a) {
          const hole = holes.at(-1), end = px + (x(dt) - x(0));
          hole && px - hole[1] < 0.01 ? hole[1] = end : holes.push([px, end]);
          open = false;
          continue;
        }
        open ? g.lineTo(px, a) : g.moveTo(px, a);
        if (b !== a) g.lineTo(px, b);
        open = true;
      }
      g.stroke();
      for (const [left, right] of holes) {
        hatch(left, right, middle - lane / 2 + 1, middle + lane / 2 - 1);
        if (right - left > 70) {
          g.fillStyle = ink.paper; g.fillRect((left + right) / 2 - 28, middle - 8, 56, 16);
          text('missing', (left + right) / 2, middle, ink.faint, 'center', SMALL);
        }
      }
      g.restore();
    }
  }
  function drawMarks() {
    const marks = shown('marks'), chosen = shown('selected'), top = lanesTop(), bottom = lanesBottom();
    const near = marks.filter(m => place(m) >= view[0] && place(m) <= view[1]);
    rows().forEach((row, k) => {
      const middle = HEADER + (k + 0.5) * ROW;
      text(row.name, GUTTER - 8, middle, ink.ink, 'right');
      line(GUTTER, middle + ROW / 2, width - RIGHT, middle + ROW / 2, ink.grid);
    });
    const ends = rows().map(() => -1e9), crowded = near.length > 120;
    for (const mark of [...near].sort((a, b) => (a.id === chosen) - (b.id === chosen) || (a.weight || 1) - (b.weight || 1))) {
      const px = x(place(mark)), row = rowOf(mark.kind), y0 = HEADER + row * ROW, dash = mark.kind === 'suggestion' ? [4, 3] : [];
      const strong = mark.id === chosen || mark === hover;
      if (strong) { g.globalAlpha = 0.2; g.fillStyle = ink.accent; g.fillRect(px - 6, y0 + 1, 12, bottom - y0); g.globalAlpha = 1; }
      line(px, y0 + 4, px, y0 + ROW - 4, mark.colour, strong ? 4 : crowded ? 1.1 * (mark.weight || 1) : 2.5, dash);
      if (!crowded || strong) {
        g.globalAlpha = strong ? 0.9 : 0.45;
        line(px, top, px, bottom, mark.colour, strong ? 1.6 : 1, row ? [5, 4] : dash);
        g.globalAlpha = 1;
      }
      if (!crowded || strong || mark.weight > 1) shape(mark.shape, px, y0 + ROW / 2, mark.colour, strong ? 1.25 : crowded ? 0.6 : 1);
    }
    const cursor = shown('cursor_s');
    if (cursor !== null && cursor >= view[0] && cursor <= view[1]) {
      line(x(cursor), HEADER, x(cursor), bottom, ink.ink, 1, [2, 3]);
      g.fillStyle = ink.ink; g.beginPath(); g.moveTo(x(cursor) - 5, top - 4); g.lineTo(x(cursor) + 5, top - 4); g.lineTo(x(cursor), top + 4); g.fill();
    }
    // Where names are too long to stand side by side, what they begin with alike goes; then only the weighty ones have names.
    const fullest = Math.max(1, ...rows().map((_, k) => near.filter(m => rowOf(m.kind) === k).length));
    const room = (width - GUTTER - RIGHT) / fullest, brief = room < 90;
    const named = room > 24 ? [...near] : near.filter(m => m.id === chosen || (m.weight > 1 && !crowded));
    const nameOf = m => fit(brief && m.id !== chosen && m.short ? m.short : m.label, 200, m.id === chosen ? '600 ' + FONT : FONT);
    for (const mark of named.sort((a, b) => (b.id === chosen) - (a.id === chosen) || place(a) - place(b))) {
      const px = x(place(mark)), row = rowOf(mark.kind), middle = HEADER + (row + 0.5) * ROW, strong = mark.id === chosen;
      g.font = strong ? '600 ' + FONT : FONT;
      const w = g.measureText(nameOf(mark)).width, left = px + w + 14 > width - RIGHT, start = left ? px - w - 9 : px + 9;
      if (!strong && start < ends[row]) continue;
      if (!strong && near.some(o => o.id === chosen && rowOf(o.kind) === row && start < x(place(o)) + g.measureText(nameOf(o)).width + 14 && start + w > x(place(o)) - 9)) continue;
      if (!strong && near.some(o => o !== mark && rowOf(o.kind) === row && x(place(o)) > start - 6 && x(place(o)) < start + w + 6)) continue;
      if (strong) { g.globalAlpha = 0.9; g.fillStyle = ink.paper; g.fillRect(start - 2, middle - 9, w + 4, 18); g.globalAlpha = 1; }
      text(nameOf(mark), start, middle, ink.ink, 'left', strong ? '600 ' + FONT : FONT);
      if (!strong) ends[row] = start + w + 4;
    }
  }
  function drawScores() {
    const label = shown('score_label'), stems = shown('scores');
    if (!label && !stems.length) return;
    const top = lanesBottom() + 12, bottom = height - AXIS - STRIP - 8, limit = 10, middle = (top + bottom) / 2;
    const y = v => middle - Math.max(-1, Math.min(1, v / limit)) * (bottom - top) / 2;
    line(GUTTER, lanesBottom() + 3, width - RIGHT, lanesBottom() + 3, ink.grid);
    line(GUTTER, middle, width - RIGHT, middle, ink.faint);
    const words = label.split('\n');
    words.forEach((w, k) => text(w, GUTTER - 32, middle + 13 * (k - (words.length - 1) / 2), ink.faint, 'right', SMALL));
    for (const v of [-limit, 0, limit]) text(v > 0 ? '≥ ' + v : v < 0 ? '≤ −' + -v : '0', GUTTER - 4, y(v), ink.faint, 'right', '10px system-ui, sans-serif');
    for (const stem of stems) {
      if (stem.time_s < view[0] || stem.time_s > view[1]) continue;
      const px = x(stem.time_s), py = y(stem.value);
      line(px, middle, px, py, stem.colour, 1.2);
      g.beginPath(); g.arc(px, py, 3.2, 0, 7); g.fillStyle = stem.value >= 0 ? stem.colour : ink.paper; g.fill();
      g.strokeStyle = stem.colour; g.lineWidth = 1.2; g.stroke();
    }
  }
  function write() {  // above the signal: what is said, what lies under the pointer, and the legend
    const words = shown('message');
    if (said.textContent !== words) said.textContent = said.title = words;
    tipLine.textContent = tipLine.title = hover ? inWords(hover) : '';
    const entries = JSON.stringify(shown('legend'));
    if (legend.dataset.entries === entries) return;
    legend.dataset.entries = entries;
    legend.replaceChildren(...shown('legend').map(([name, colour, sign]) => {
      const item = document.createElement('li'), svg = 'http://www.w3.org/2000/svg', picture = document.createElementNS(svg, 'svg');
      picture.setAttribute('viewBox', '-7 -7 14 14'); picture.setAttribute('aria-hidden', 'true');
      const path = picture.appendChild(document.createElementNS(svg, 'path'));
      path.setAttribute('d', SHAPES[sign]); path.setAttribute('fill', colour);
      item.append(picture, name);
      return item;
    }));
  }
  function inWords(mark) {
    const score = mark.score == null ? '' : `, score ${mark.score.toFixed(3)}`;
    return `${mark.kind || 'candidate'} ${mark.label} at ${place(mark).toFixed(4)} s${score}${mark.note ? ', ' + mark.note : ''}`;
  }
  function tell() {  // the picture in words; after a key it is read out, too
    clearTimeout(telling);
    telling = setTimeout(() => {
      const inView = shown('marks').filter(m => m.time_s >= view[0] && m.time_s <= view[1]).sort((a, b) => a.time_s - b.time_s);
      const cursor = shown('cursor_s'), at = cursor === null ? '' : ` Cursor at ${cursor.toFixed(4)} s.`;
      const from = `Signal from ${view[0].toFixed(3)} s to ${view[1].toFixed(3)} s of ${shown('duration_s').toFixed(1)} s.${at}`;
      const listed = inView.length ? `${inView.length} marks: ${inView.slice(0, 20).map(inWords).join('; ')}${inView.length > 20 ? '; and more' : ''}.` : 'No marks.';
      canvas.setAttribute('aria-label', `${from} Channels: ${shown('channels').join(', ')}. ${listed}`);
      if (byKey) { byKey = false; told.textContent = `${from} ${inView.length} marks.`; }
    }, TELL_MS);
  }
  function drawStrip() {  // the whole recording: where this view lies, and where to go
    const all = shown('duration_s'), top = height - STRIP, w = width - GUTTER - RIGHT, at = t => GUTTER + t / all * w;
    g.fillStyle = ink.grid; g.fillRect(GUTTER, top, w, STRIP - 2);
    for (const part of shown('spans')) span(part, at(part[0]), Math.max(at(part[1]), at(part[0]) + 1), top, top + STRIP - 2);
    const few = shown('landmarks').length <= w / 12;
    for (const [t, colour, sign] of shown('landmarks'))
      few ? shape(sign, at(t), top + STRIP / 2 - 1, colour, 0.75) : line(at(t), top + 2, at(t), top + STRIP - 4, colour, 1.2);
    const left = at(view[0]), wide = Math.max(at(view[1]) - left, 3);
    g.globalAlpha = 0.25; g.fillStyle = ink.accent; g.fillRect(left, top, wide, STRIP - 2); g.globalAlpha = 1;
    g.strokeStyle = ink.accent; g.lineWidth = 1.5; g.strokeRect(left - 0.5, top + 0.5, wide, STRIP - 3);
    text(all >= 600 ? `${(all / 60).toFixed(0)} min` : `${all.toFixed(0)} s`, GUTTER - 8, top + STRIP / 2 - 1, ink.faint, 'right', SMALL);
  }

  const position = event => { const r = canvas.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
  function stemAt(px) {
    const near = shown('scores').map(s => [Math.abs(x(s.time_s) - px), s]).filter(([d]) => d < 5).sort((a, b) => a[0] - b[0]);
    return near.length ? { ...near[0][1], id: -2, note: `log odds over threshold ${near[0][1].value.toFixed(1)}` } : null;
  }
  function markAt(px, py) {
    if (px < GUTTER || py < HEADER || py > lanesBottom()) return null;
    const inRows = py < lanesTop();
    const near = shown('marks').map(m => [Math.abs(x(place(m)) - px), m])
      .filter(([d, m]) => d < 6 && (!inRows || rowOf(m.kind) === Math.floor((py - HEADER) / ROW)));
    near.sort((a, b) => a[0] - b[0]);
    return near.length ? near[0][1] : null;
  }
  function channelAt(py) {
    const n = shown('channels').length, c = Math.floor((py - lanesTop()) / (lanesBottom() - lanesTop()) * n);
    return c >= 0 && c < n ? c : -1;
  }
  const inStrip = py => py >= height - STRIP;
  function jump(px) {
    const t = (px - GUTTER) / (width - GUTTER - RIGHT) * shown('duration_s'), w = view[1] - view[0];
    move([t - w / 2, t + w / 2]);
  }
  canvas.addEventListener('pointerdown', event => {
    const [px, py] = position(event);
    box.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    drag = { px, py, view: [...view], mark: markAt(px, py), strip: inStrip(py), far: false };
    if (drag.strip) jump(px);
  });
  canvas.addEventListener('pointermove', event => {
    const [px, py] = position(event);
    if (!drag) {
      const below = py > lanesBottom() && py < height - AXIS - STRIP, mark = below ? stemAt(px) : markAt(px, py);
      if (mark !== hover) { hover = mark; redraw(); }
      canvas.title = px < GUTTER ? shown('channels')[channelAt(py)] || '' : '';  // the whole of a long name
      canvas.style.cursor = mark && !below ? (shown('editable') ? 'ew-resize' : 'pointer') : inStrip(py) ? 'col-resize' : 'crosshair';
      return;
    }
    if (drag.strip) { jump(px); return; }
    if (Math.abs(px - drag.px) > 3) drag.far = true;
    if (!drag.far) return;
    if (drag.mark && shown('editable')) { moved = { id: drag.mark.id, time_s: time(px) }; redraw(); return; }
    const shift = (px - drag.px) / (width - GUTTER - RIGHT) * (drag.view[1] - drag.view[0]);
    canvas.style.cursor = 'grabbing';
    move([drag.view[0] - shift, drag.view[1] - shift]);
  });
  canvas.addEventListener('pointerup', event => {
    const was = drag, [px, py] = position(event);
    drag = null;
    if (!was || was.strip) return;
    if (was.far) {
      if (moved) { send('dragged', { ...moved, shift: event.shiftKey }); }  // the mark stays where it was put until the kernel answers
      return;
    }
    if (was.mark) { send('selected', was.mark.id); redraw(); return; }
    if (px >= GUTTER && px <= width - RIGHT && py > HEADER && py < lanesBottom())
      send('clicked', { time_s: time(px), channel: channelAt(py), shift: event.shiftKey, count: Number(shown('clicked').count || 0) + 1 });
  });
  canvas.addEventListener('pointercancel', () => { drag = null; moved = null; redraw(); });
  canvas.addEventListener('pointerleave', () => { if (hover) { hover = null; redraw(); } });
  box.addEventListener('wheel', event => {
    event.preventDefault(); event.stopPropagation();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const shift = (event.deltaX || event.deltaY) / 600 * (view[1] - view[0]);
      move([view[0] + shift, view[1] + shift]);
    } else zoom(Math.exp(event.deltaY * 0.0015), time(position(event)[0]));
  }, { passive: false });
  function setCursor(t) {
    const [a, b] = view, at = Math.min(Math.max(t, 0), shown('duration_s'));
    model.set('cursor_s', at);
    if (at < a || at > b) view = clamp([at - (b - a) / 2, at + (b - a) / 2]);
    ask(); redraw();
  }
  function step(direction) {  // from mark to mark; the kernel sends some beyond the view, too
    const marks = [...shown('marks')].sort((a, b) => a.time_s - b.time_s || a.id - b.id), k = marks.findIndex(m => m.id === shown('selected'));
    const middle = (view[0] + view[1]) / 2;
    const here = k >= 0 ? k + direction : direction > 0 ? marks.findIndex(m => m.time_s >= middle) : marks.findLastIndex(m => m.time_s < middle);
    const next = marks[here];
    if (!next) { move([view[0] + 0.5 * direction * (view[1] - view[0]), view[1] + 0.5 * direction * (view[1] - view[0])]); return; }
    if (next.time_s < view[0] || next.time_s > view[1]) move([next.time_s - (view[1] - view[0]) / 2, next.time_s + (view[1] - view[0]) / 2]);
    send('selected', next.id); redraw();
  }
  box.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const w = view[1] - view[0], all = shown('duration_s'), cursor = shown('cursor_s');
    const from = cursor === null || cursor < view[0] || cursor > view[1] ? (view[0] + view[1]) / 2 : cursor;
    const own = event.shiftKey && event.key.startsWith('Arrow') ? {
      ArrowLeft: () => setCursor(from - w / 200), ArrowRight: () => setCursor(from + w / 200),
    }[event.key] : {
      ArrowLeft: () => move([view[0] - 0.25 * w, view[1] - 0.25 * w]), ArrowRight: () => move([view[0] + 0.25 * w, view[1] + 0.25 * w]),
      PageUp: () => move([view[0] - w, view[1] - w]), PageDown: () => move([view[0] + w, view[1] + w]),
      ArrowUp: () => send('gain', shown('gain') * 1.25), ArrowDown: () => send('gain', shown('gain') / 1.25),
      '+': () => zoom(0.6, from), '=': () => zoom(0.6, from), '-': () => zoom(1 / 0.6, from), Home: () => move([0, w]), End: () => move([all - w, all]),
      ',': () => step(-1), '.': () => step(1),
    }[event.key];
    const sent = event.key.length === 1 || ['Enter', 'Delete', 'Backspace'].includes(event.key);
    if (!own && !sent) return;  // Tab leaves; keys of the browser stay its own
    event.preventDefault(); event.stopPropagation();
    byKey = true;
    if (own) own();
    else send('pressed', { key: event.key, shift: event.shiftKey, count: Number(shown('pressed').count || 0) + 1 });
  });
  // The theme has changed: what is out of sight, or taken off the page meanwhile, sees the end of no transition.
  for (const name of ['transitionend', 'transitioncancel']) box.addEventListener(name, redraw);
  const sight = new IntersectionObserver(redraw);
  sight.observe(box);

  function take() {
    const bytes = shown('data');
    signal = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    redraw();
  }
  model.on('change:data', take);
  model.on('change:view', () => { if (!drag) { view = [...shown('view')]; redraw(); } });
  model.on('change:marks', () => { moved = null; hover = null; redraw(); });
  for (const name of ['cursor_s', 'scores', 'spans', 'selected', 'message', 'legend', 'landmarks', 'rows', 'gain', 'half', 'height', 'channels', 'score_label'])
    model.on('change:' + name, redraw);
  const watch = new ResizeObserver(redraw);
  watch.observe(box);
  take();
  return () => { clearTimeout(timer); clearTimeout(telling); watch.disconnect(); sight.disconnect(); model.off(null, null, null); };
}
export default { render };
