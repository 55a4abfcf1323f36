//! The server and the client against each other, against raw frames and against the Linux kernel.

#[path = "all/client.rs"]
mod client;
#[path = "all/memory.rs"]
mod memory;
#[path = "all/script.rs"]
mod script;
#[path = "all/server.rs"]
mod server;
