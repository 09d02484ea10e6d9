// A line of messages, which screen readers read out; and for the controls around it what ipywidgets leaves out: names for
// the handles of sliders, states of toggles, text for the picture. It also tells the kernel how wide the page is.
function render({ model, el }) {
  const line = document.createElement('div');
  line.setAttribute('role', 'status');
  el.appendChild(line);
  let root = null;
  function say() {
    line.textContent = model.get('value');
    line.className = 'evlib-message' + (model.get('warning') ? ' evlib-warning' : '');
  }
  function name() {
    for (const handle of root.querySelectorAll('.noUi-handle')) {
      const slider = handle.closest('.widget-slider'), readout = slider.querySelector('.widget-readout')?.textContent;
      const side = slider.querySelectorAll('.noUi-handle').length < 2 ? '' : handle.dataset.handle === '0' ? ', least' : ', greatest';
      handle.setAttribute('aria-label', slider.querySelector('.widget-label').textContent + side);
      if (readout && !side) handle.setAttribute('aria-valuetext', readout);
    }
    for (const button of root.querySelectorAll('.jupyter-button')) {
      if (button.matches('.widget-toggle-button')) button.setAttribute('aria-pressed', button.classList.contains('mod-active'));
      if (button.title && !/\p{L}/u.test(button.textContent)) button.setAttribute('aria-label', button.title);
    }
    for (const option of root.querySelectorAll('option')) option.title = option.textContent;
    for (const image of root.querySelectorAll('.widget-image')) image.alt = model.get('picture');
  }
  const later = new MutationObserver(name);
  const wide = new ResizeObserver(() => {
    if (!root && (root = el.closest('.evlib-widget'))) {
      root.setAttribute('data-lm-suppress-shortcuts', 'true');  // JupyterLab leaves the keys to these controls
      later.observe(root, { childList: true, characterData: true, subtree: true, attributes: true, attributeFilter: ['class'] });
      wide.observe(root);
      name();
    }
    const width = root ? Math.round(root.clientWidth / 50) * 50 : 0;
    if (width && width !== model.get('width_px')) { model.set('width_px', width); model.save_changes(); }
  });
  wide.observe(el);
  say();
  model.on('change:value', say);
  model.on('change:warning', say);
  model.on('change:picture', () => root && name());
  return () => { later.disconnect(); wide.disconnect(); model.off(null, null, null); };
}
export default { render };
