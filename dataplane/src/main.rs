//! The `ferromesh-proxy` program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ferromesh_dataplane::main_with(std::env::args_os(), &[])
}
