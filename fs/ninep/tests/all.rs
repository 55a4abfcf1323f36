//! The server and the client against each other, against raw frames and against the Linux kernel.

#[path = "all/client.rs"]
mod client;
#[path = "all/kernel.rs"]
mod kernel;
#[path = "all/memory.rs"]
mod memory;
#[path = "all/script.rs"]
mod script;
#[path = "all/server.rs"]
mod server;
#[path = "all/socket.rs"]
mod socket;

/// Runs one test to its end on a runtime of its own; none takes longer than this.
fn block_on<F: Future>(f: F) -> F::Output {
    block_on_for(30, f)
}

fn block_on_for<F: Future>(seconds: u64, f: F) -> F::Output {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(seconds), f).await.expect("in time") })
}
