//! Forks: which process this is, and the descriptors that a child has to close.
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

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

/// A socket with its entry. They end together, which no fork comes between.
#[derive(Debug)]
pub struct Listed<T> {
    entry: ManuallyDrop<SocketEntry>,
    socket: ManuallyDrop<T>,
}

impl<T> Listed<T> {
    pub fn new(entry: SocketEntry, socket: T) -> Listed<T> {
        Listed { entry: ManuallyDrop::new(entry), socket: ManuallyDrop::new(socket) }
    }

    pub fn of(socket: T) -> Listed<T>
    where
        T: AsRawFd,
    {
        Listed::new(SocketEntry::new(socket.as_raw_fd()), socket)
    }
}

impl<T> Deref for Listed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.socket
    }
}

impl<T> DerefMut for Listed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.socket
    }
}

impl<T> Drop for Listed<T> {
    fn drop(&mut self) {
        let _hold = hold_forks();
        // SAFETY: dropped once, here, and not used afterwards. The entry first: a number that is closed may be another file's.
        unsafe {
            ManuallyDrop::drop(&mut self.entry);
            ManuallyDrop::drop(&mut self.socket);
        }
    }
}

/// Forks wait so long for those who hold them off, which is a matter of microseconds; a thread that does not run is not waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// A fork of a process with much memory takes so long at most.
const LONGEST_FORK: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_micros(50);

/// How many threads hold forks off, and how many fork.
static HOLDING: AtomicUsize = AtomicUsize::new(0);
static FORKING: AtomicUsize = AtomicUsize::new(0);

/// As long as it lives no fork begins, nor does it begin during one.
#[derive(Debug)]
#[must_use]
pub struct Hold(());

/// Needed where a descriptor and its entry come or go. The kernel copies a process's descriptors first and its memory some
/// milliseconds later, while other threads run on: what is closed between the two is open in the child, and in no list.
/// A thread holds one at a time.
pub fn hold_forks() -> Hold {
    let mut until = None;
    loop {
        HOLDING.fetch_add(1, SeqCst);
        let forking = FORKING.load(SeqCst);
        if forking == 0 {
            return Hold(());
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            // Nobody else waits for it: another library's handler may never return.
            let _ended_meanwhile = FORKING.compare_exchange(forking, 0, SeqCst, SeqCst);
            return Hold(());
        }
        HOLDING.fetch_sub(1, SeqCst);
        until = until.or_else(|| Some(Instant::now() + LONGEST_FORK));
        std::thread::sleep(NAP);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDING.fetch_sub(1, SeqCst);
    }
}

extern "C" fn about_to_fork() {
    FORKING.fetch_add(1, SeqCst);
    let until = Instant::now() + PATIENCE;
    while HOLDING.load(SeqCst) != 0 && Instant::now() < until {
        std::thread::sleep(NAP);
    }
}

/// In the parent, also when there is no child. It may not be counted any more: in a child of a fork within this one, or after long.
extern "C" fn done_forking() {
    let _none = FORKING.fetch_update(SeqCst, SeqCst, |forking| forking.checked_sub(1));
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
            libc::pthread_atfork(Some(about_to_fork), Some(done_forking), Some(forked));
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
    HOLDING.store(0, SeqCst); // the thread that forked is the only one here, and holds none
    FORKING.store(0, SeqCst);
    for entry in &OPEN_SOCKETS {
        let fd = entry.swap(-1, AcqRel);
        if fd >= 0 {
            // SAFETY: ours alone in this process: the parent's engine, which knew the number, does not exist here.
            unsafe { libc::close(fd) };
        }
    }
}
