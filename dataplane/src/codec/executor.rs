//! Spawns hyper's tasks on the worker's own thread.

use std::future::Future;

/// Runs futures on the current thread's local runtime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
