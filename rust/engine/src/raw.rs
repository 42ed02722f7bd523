//! The one module with `unsafe`: memory that is not Rust's to borrow, and the system calls that move bytes in and out of it.
//!
//! Bodies land in memory that Python can see (a caller's buffer, a `Body` with live views), so no `&mut [u8]` to it may exist.
//! A [`Span`] is a raw pointer with a length; it is copied to and from, received into and sent from, never dereferenced.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

mod fork;
mod pool;

pub use fork::{Listed, SocketEntry, after_fork_in_child, generation, hold_forks, watch_forks};
pub use pool::{Pool, PooledBuffer};

const HUGE_PAGE: usize = 2 << 20;

/// No object of S3 is larger; what claims to be is not added to anything.
pub const MOST: usize = 1 << 50;

/// Foreign memory, in one piece or in several that count as if they lay one behind the other. Whoever makes one promises that it
/// stays mapped until the last use; the engine promises that a span it was given is not touched any more once the request's result
/// was handed over.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first byte; of several pieces, without meaning as an address, its place among all of their bytes.
    ptr: *mut u8,
    len: usize,
    /// Where several pieces are written down; null for one.
    list: *const Box<[Place]>,
}

/// One piece of scattered memory, and at which byte of the whole it ends.
#[derive(Clone, Copy, Debug)]
struct Place {
    ptr: *mut u8,
    end: usize,
}

// SAFETY: pointers and lengths; every access goes through system calls or `ptr::copy`, and the scheduler gives each byte one writer.
unsafe impl Send for Span {}
unsafe impl Sync for Span {}

impl Span {
    pub const EMPTY: Span = Span::of(std::ptr::null_mut(), 0);

    const fn of(ptr: *mut u8, len: usize) -> Span {
        Span { ptr, len, list: std::ptr::null() }
    }

    /// # Safety
    /// `ptr..ptr + len` must stay mapped (and writable, if it is a destination) until the request that uses it has ended.
    pub unsafe fn new(ptr: *mut u8, len: usize) -> Span {
        Span::of(ptr, len)
    }

    /// A span over memory that lives as long as the program.
    pub fn of_static(bytes: &'static [u8]) -> Span {
        Span::of(bytes.as_ptr() as *mut u8, bytes.len())
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Of memory in one piece.
    pub fn as_ptr(&self) -> *mut u8 {
        debug_assert!(!self.is_scattered());
        self.ptr
    }

    fn is_scattered(&self) -> bool {
        !self.list.is_null()
    }

    /// The part `[start, start + len)`; panics when that is not inside.
    pub fn slice(&self, start: usize, len: usize) -> Span {
        assert!(start <= self.len && len <= self.len - start, "span {start}+{len} of {}", self.len);
        if self.is_scattered() {
            return Span { ptr: std::ptr::without_provenance_mut(self.ptr.addr() + start), len, ..*self };
        }
        // SAFETY: inside the allocation, as just checked.
        Span::of(unsafe { self.ptr.add(start) }, len)
    }

    /// Its pieces, in order, none of them empty.
    fn pieces(&self) -> Pieces {
        // SAFETY: the list lives as long as the memory.
        let places = unsafe { self.list.as_ref() };
        let at = places.map_or(0, |places| places.partition_point(|place| place.end <= self.ptr.addr()));
        Pieces { span: *self, at }
    }

    pub fn copy_from(&self, start: usize, bytes: &[u8]) {
        let mut done = 0;
        for to in self.slice(start, bytes.len()).pieces() {
            // SAFETY: `to` has that many bytes; the two cannot overlap, since no reference to a span's memory exists.
            unsafe { std::ptr::copy_nonoverlapping(bytes[done..].as_ptr(), to.ptr, to.len) }
            done += to.len;
        }
    }

    pub fn copy_to(&self, start: usize, bytes: &mut [u8]) {
        let mut done = 0;
        for from in self.slice(start, bytes.len()).pieces() {
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(from.ptr, bytes[done..].as_mut_ptr(), from.len) }
            done += from.len;
        }
    }

    pub fn copy_from_span(&self, other: Span) {
        assert!(other.len <= self.len);
        let mut done = 0;
        while done < other.len {
            let (to, from) = (self.slice(done, self.len - done).front(), other.slice(done, other.len - done).front());
            let n = to.len.min(from.len);
            // SAFETY: both are valid for that length; `copy` allows them to overlap.
            unsafe { std::ptr::copy(from.ptr, to.ptr, n) }
            done += n;
        }
    }

    /// As much of its beginning as lies in one piece.
    fn front(&self) -> Span {
        self.pieces().next().unwrap_or(Span::EMPTY)
    }

    /// As much of its beginning as one system call takes.
    pub fn for_one_call(&self) -> Span {
        if !self.is_scattered() {
            return *self;
        }
        let len = self.pieces().take(MOST_PIECES).map(|piece| piece.len).sum();
        self.slice(0, len)
    }

    /// Calls `f` with the span's bytes in pieces copied to a scratch buffer, since others may write to them meanwhile.
    pub fn for_each_chunk(&self, scratch: &mut [u8], mut f: impl FnMut(&[u8])) {
        let mut at = 0;
        while at < self.len {
            let n = scratch.len().min(self.len - at);
            self.copy_to(at, &mut scratch[..n]);
            f(&scratch[..n]);
            at += n;
        }
    }
}

struct Pieces {
    span: Span,
    at: usize,
}

impl Iterator for Pieces {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let rest = self.span;
        if rest.len == 0 {
            return None;
        }
        // SAFETY: the list lives as long as the memory.
        let Some(places) = (unsafe { rest.list.as_ref() }) else {
            self.span.len = 0;
            return Some(rest);
        };
        let begin = if self.at == 0 { 0 } else { places[self.at - 1].end };
        let place = places[self.at];
        let from = rest.ptr.addr();
        let len = (place.end - from).min(rest.len);
        // SAFETY: inside the piece, since it begins at `begin` and ends at `end`.
        let piece = Span::of(unsafe { place.ptr.add(from - begin) }, len);
        (self.span, self.at) = (rest.slice(len, rest.len - len), self.at + 1);
        Some(piece)
    }
}

/// Memory in several pieces, as one span. It keeps the list of them, not the memory.
#[derive(Debug)]
pub struct Scattered {
    /// In a place of its own, which stays where it is.
    places: Box<Box<[Place]>>,
}

// SAFETY: as for spans.
unsafe impl Send for Scattered {}
unsafe impl Sync for Scattered {}

impl Scattered {
    pub fn new(spans: impl IntoIterator<Item = Span>) -> Scattered {
        let mut end = 0;
        let pieces = spans.into_iter().flat_map(|span| span.pieces());
        let places = pieces.map(|piece| {
            end += piece.len;
            Place { ptr: piece.ptr, end }
        });
        Scattered { places: Box::new(places.collect()) }
    }

    /// # Safety
    /// As for `Span::new`, of all of the pieces; this must live as long.
    pub unsafe fn span(&self) -> Span {
        let Some(last) = self.places.last() else { return Span::EMPTY };
        Span { ptr: std::ptr::null_mut(), len: last.end, list: std::ptr::from_ref(&*self.places) }
    }
}

/// A span over shared bytes, valid while they live; for sending only.
pub fn span_of(bytes: &[u8]) -> Span {
    Span::of(bytes.as_ptr() as *mut u8, bytes.len())
}

/// A span over memory of one's own, to receive into; valid until it is moved or grown.
pub fn span_of_mut(bytes: &mut [u8]) -> Span {
    Span::of(bytes.as_mut_ptr(), bytes.len())
}

/// More pieces than these take another call.
const MOST_PIECES: usize = 64;

/// Receives into a span, of which `for_one_call` says how much: -> bytes (0: the peer closed), or the error, `WouldBlock` included.
pub fn recv(fd: RawFd, into: Span) -> io::Result<usize> {
    if into.is_scattered() {
        let mut vectors = Vectors::new();
        into.pieces().take(MOST_PIECES).for_each(|piece| vectors.push(piece));
        // SAFETY: the span is writable for its length.
        return again(|| unsafe { libc::recvmsg(fd, &mut vectors.message(), 0) });
    }
    // SAFETY: as above.
    again(|| unsafe { libc::recv(fd, into.ptr.cast(), into.len, 0) })
}

/// Sends a head and a span in one call, without SIGPIPE: -> bytes.
pub fn send(fd: RawFd, head: &[u8], body: Span) -> io::Result<usize> {
    let mut vectors = Vectors::new();
    if !head.is_empty() {
        vectors.push(span_of(head));
    }
    body.pieces().take(MOST_PIECES).for_each(|piece| vectors.push(piece));
    // SAFETY: the head and the span are readable for their lengths.
    again(|| unsafe { libc::sendmsg(fd, &vectors.message(), SEND_FLAGS) })
}

struct Vectors {
    vectors: [libc::iovec; MOST_PIECES + 1],
    count: usize,
}

impl Vectors {
    fn new() -> Vectors {
        Vectors { vectors: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MOST_PIECES + 1], count: 0 }
    }

    fn push(&mut self, piece: Span) {
        self.vectors[self.count] = libc::iovec { iov_base: piece.ptr.cast(), iov_len: piece.len };
        self.count += 1;
    }

    /// Valid while this lives and stays where it is.
    fn message(&mut self) -> libc::msghdr {
        // SAFETY: zeroed is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.vectors.as_mut_ptr();
        message.msg_iovlen = self.count as _;
        message
    }
}

/// A system call, again when a signal came between.
fn again(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let n = call();
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(target_os = "linux")]
const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: libc::c_int = 0; // SO_NOSIGPIPE would be the option; Python ignores SIGPIPE

/// Acknowledges now what has come on a connection, and what comes until something is sent on it. Costs a system call.
pub fn acknowledge(fd: RawFd) {
    #[cfg(target_os = "linux")]
    // SAFETY: a plain call, on an integer of our own stack. If it fails, the kernel acknowledges later.
    unsafe {
        let on: libc::c_int = 1;
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, (&raw const on).cast(), len);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = fd;
}

/// Whether an idle connection has something to read, which means that it was closed (or is broken).
pub fn is_stale(fd: RawFd) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte of our own stack.
    let n = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    n >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
}

/// Blocks every signal in this thread, so that they reach Python's threads.
pub fn block_signals() {
    // SAFETY: plain calls on a set of our own.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}

/// CPU time of the calling thread, ns.
pub fn thread_cpu_ns() -> u64 {
    // SAFETY: zeroed is a valid timespec, the call fills it.
    unsafe {
        let mut t: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t);
        t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
    }
}

/// Asks for huge pages for memory that is about to be filled: their first touch costs a third of the CPU.
pub fn prefer_huge_pages(span: Span) {
    #[cfg(target_os = "linux")]
    for piece in span.pieces() {
        let skip = piece.ptr.align_offset(HUGE_PAGE).min(piece.len);
        let len = (piece.len - skip) / HUGE_PAGE * HUGE_PAGE;
        if len > 0 {
            // SAFETY: whole pages inside memory that is mapped; it is advice only.
            unsafe { libc::madvise(piece.ptr.add(skip).cast(), len, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = span;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_pieces_is_as_one_of_a_piece() {
        let (mut a, mut b, mut c) = (*b"abc", *b"defgh", *b"i");
        let whole = b"abcdefghi";
        let list = Scattered::new([&mut a[..], &mut [], &mut b[..], &mut c[..]].map(span_of_mut));
        // SAFETY: the arrays and the list live on.
        let span = unsafe { list.span() };
        assert_eq!(span.len(), 9);
        for start in 0..=9 {
            for end in start..=9 {
                let part = span.slice(start, end - start);
                let mut bytes = vec![0; part.len()];
                part.copy_to(0, &mut bytes);
                assert_eq!(bytes, whole[start..end]);
                let mut seen = Vec::new();
                part.for_each_chunk(&mut [0; 2], |chunk| seen.extend_from_slice(chunk));
                assert_eq!(seen, whole[start..end]);
                let mut copied = vec![0; part.len()];
                span_of_mut(&mut copied).copy_from_span(part);
                assert_eq!(copied, whole[start..end]);
                assert_eq!(part.for_one_call().len(), part.len());
            }
        }
        span.slice(1, 7).copy_from(0, b"1234567");
        let mut bytes = [0; 9];
        span.copy_to(0, &mut bytes);
        assert_eq!(&bytes, b"a1234567i");
        let mut other = *b"ABCDEFGHI";
        let halves = Scattered::new([span_of_mut(&mut other).slice(0, 5), span_of_mut(&mut other).slice(5, 4)]);
        // SAFETY: as above.
        span.copy_from_span(unsafe { halves.span() });
        span.copy_to(0, &mut bytes);
        assert_eq!(&bytes, b"ABCDEFGHI");
        // SAFETY: as above.
        assert!(unsafe { Scattered::new([]).span() }.is_empty());
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn pieces_are_sent_and_received_in_order() {
        use std::os::fd::AsRawFd;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut sent: Vec<u8> = (0..=255).cycle().take(3 * 200).collect();
        let mut got = vec![0u8; sent.len()];
        let pieces = |bytes: &mut [u8]| Scattered::new(bytes.chunks_mut(3).map(span_of_mut).collect::<Vec<_>>());
        let (from, to) = (pieces(&mut sent), pieces(&mut got));
        // SAFETY: the vectors and lists live on.
        let (from, to) = unsafe { (from.span(), to.span()) };
        assert_eq!(from.for_one_call().len(), 3 * MOST_PIECES);
        let mut at = send(ours.as_raw_fd(), b"", from.slice(0, 7)).unwrap();
        while at < from.len() {
            at += send(ours.as_raw_fd(), b"", from.slice(at, from.len() - at)).unwrap();
        }
        let mut at = recv(theirs.as_raw_fd(), to.slice(0, 2)).unwrap();
        while at < to.len() {
            at += recv(theirs.as_raw_fd(), to.slice(at, to.len() - at)).unwrap();
        }
        assert_eq!(sent, got);
        assert_eq!(send(ours.as_raw_fd(), b"head", from.slice(0, 6)).unwrap(), 10);
    }

    #[test]
    #[should_panic(expected = "span 3+3 of 5")]
    fn a_span_checks_its_bounds() {
        Span::of_static(b"12345").slice(3, 3);
    }
}
