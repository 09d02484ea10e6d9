"""Signal that is still coming: how bytes of a sensor become blocks of samples."""
