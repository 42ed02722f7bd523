//! Locks and atomics of whatever several threads share in queues, budgets and assemblies: the standard library's, and in
//! the tests of `model` those of loom, which runs them in every order that the memory model allows.

#[cfg(not(feature = "loom"))]
mod chosen {
    pub use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub use tokio::sync::Notify;
}

#[cfg(feature = "loom")]
mod chosen {
    pub use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

    /// As tokio's, for threads: one permit, which the next to wait takes.
    #[derive(Default)]
    pub struct Notify {
        permit: Mutex<bool>,
        changed: Condvar,
    }

    impl Notify {
        pub fn new() -> Notify {
            Notify::default()
        }

        pub fn notify_one(&self) {
            *self.permit.lock().unwrap() = true;
            self.changed.notify_one();
        }

        /// Of event loops, which no model has.
        pub fn notified(&self) -> std::future::Pending<()> {
            std::future::pending()
        }

        #[cfg(test)]
        pub fn wait(&self) {
            let mut permit = self.permit.lock().unwrap();
            while !std::mem::take(&mut *permit) {
                permit = self.changed.wait(permit).unwrap();
            }
        }
    }
}

pub use chosen::*;
