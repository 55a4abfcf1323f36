//! fs-host: a host directory as a file tree, served handle-relative.
