//! The `ferromesh` program.

use std::process::ExitCode;

/// Its background thread gives memory back that nobody asks for any more: a thread of mimalloc's
/// gives back only what it frees while it goes on working, and a control plane that a thousand
/// proxies have left does nothing.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ferromesh_control_plane::cli::main()
}
