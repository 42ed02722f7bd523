//! Forks: which process this is, and the descriptors that a child has to close.
use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::*};

/// How often this process was born by a fork since the engine was loaded. What was made under another number belongs to a parent.
static GENERATION: AtomicU32 = AtomicU32::new(0);

pub fn generation() -> u32 {
    GENERATION.load(Relaxed)
}

const SOCKETS: usize = 16384;
static OPEN_SOCKETS: [AtomicI32; SOCKETS] = [const { AtomicI32::new(-1) }; SOCKETS];
static NEXT_SOCKET: AtomicUsize = AtomicUsize::new(0);

/// Keeps a descriptor in the list that a forked child closes, beside sockets those of event loops. Lock-free, since a fork may come
/// at any instruction.
#[derive(Debug)]
pub struct SocketEntry(Option<usize>);

impl SocketEntry {
    pub fn new(fd: RawFd) -> SocketEntry {
        let start = NEXT_SOCKET.fetch_add(1, Relaxed);
        let free = (0..SOCKETS).map(|i| (start + i) % SOCKETS);
        SocketEntry(free.into_iter().find(|&i| OPEN_SOCKETS[i].compare_exchange(-1, fd, AcqRel, Relaxed).is_ok()))
    }
}

impl Drop for SocketEntry {
    fn drop(&mut self) {
        if let Some(i) = self.0 {
            OPEN_SOCKETS[i].store(-1, Release);
        }
    }
}

/// The process that the current generation belongs to.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Has libc tell of every fork, those of C code too, before anything else runs in the child: Python objects of the parent's
/// may die there before Python's own handlers run, and must know by then where they are.
pub fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: getpid has no preconditions; the handler makes only calls that a forked child may make.
        unsafe {
            OWNER.store(libc::getpid(), SeqCst);
            libc::pthread_atfork(None, None, Some(forked));
        }
    });
}

/// For whoever has no [`watch_forks`]; does nothing when that has seen the fork.
pub fn after_fork_in_child() {
    // SAFETY: no preconditions.
    if OWNER.load(SeqCst) != unsafe { libc::getpid() } {
        forked();
    }
}

/// In the child of a fork: a new generation begins, and what it inherited is closed without a word to the peer. An epoll set loses
/// nothing by that: it belongs to an open file, which the parent holds too, and only a last `close` or `epoll_ctl` takes from it.
extern "C" fn forked() {
    // SAFETY: no preconditions.
    OWNER.store(unsafe { libc::getpid() }, SeqCst);
    GENERATION.fetch_add(1, SeqCst);
    for entry in &OPEN_SOCKETS {
        let fd = entry.swap(-1, AcqRel);
        if fd >= 0 {
            // SAFETY: ours alone in this process: the parent's engine, which knew the number, does not exist here.
            unsafe { libc::close(fd) };
        }
    }
}
