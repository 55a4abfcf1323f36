//! Jobs, from the files down to the process: one test binary, so that the engine is linked once.

mod files;
mod hostile;
mod kit;
mod rules;
