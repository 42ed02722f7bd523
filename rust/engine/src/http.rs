//! HTTP/1.1 over one connection: bodies go from the socket straight to where they are wanted.
use crate::failure::Fault;
use crate::head::{Head, Length, parse_head};
use crate::proxy::Forwarding;
use crate::raw::{self, Listed, Span};
use crate::slot::Slot;
use crate::tls::Tls;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::TcpStream;

mod body;

pub use body::Reading;

/// Heads are a few hundred bytes; reading more at first would only be copied again from here to the body's place.
const HEAD_READ: usize = 4 << 10;
const MAX_HEAD: usize = 64 << 10;
const SCRATCH: usize = 64 << 10;

pub struct Connection {
    tcp: Listed<TcpStream>,
    tls: Option<Box<Tls>>,
    /// It leads to a proxy that forwards each request.
    forwarding: Option<Box<Forwarding>>,
    /// The answer's body ends with the connection.
    until_close: bool,
    /// Bytes received that nobody has consumed: `head[at..filled]`.
    head: Vec<u8>,
    at: usize,
    filled: usize,
    /// How many requests it has served.
    pub uses: u32,
    pub idle_since: Instant,
}

pub enum Sent {
    All,
    /// The server answered before it had everything: the connection ends with this answer.
    AnsweredEarly,
}

fn io_fault(error: &io::Error, what: &str) -> Fault {
    Fault::transport(format_args!("{what}: {error}"))
}

impl Connection {
    pub fn new(tcp: Listed<TcpStream>) -> Connection {
        Connection {
            tcp,
            tls: None,
            forwarding: None,
            until_close: false,
            head: vec![0; HEAD_READ],
            at: 0,
            filled: 0,
            uses: 0,
            idle_since: Instant::now(),
        }
    }

    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.tcp.peer_addr().ok()
    }

    /// Whether something has come that was not looked at.
    pub fn has_news(&self) -> bool {
        self.filled > self.at || raw::is_stale(self.tcp.as_raw_fd())
    }

    /// Asks a proxy for a tunnel -> its answer; a refusal's body stays unread.
    pub async fn open_tunnel(&mut self, slot: &Slot, request: &[u8]) -> Result<Head, Fault> {
        self.send(slot, request, Span::EMPTY).await?;
        let answer = self.read_head(slot, true).await?;
        let answer = answer.ok_or_else(|| Fault::transport("closed without an answer"))?;
        if answer.status / 100 == 2 && self.at < self.filled {
            return Err(Fault::transport("more bytes than its answer, before anything was asked of the endpoint"));
        }
        Ok(answer)
    }

    pub fn forward_by(&mut self, forwarding: Forwarding) {
        self.forwarding = Some(Box::new(forwarding));
    }

    /// The TLS handshake; certificate errors are final, since another attempt meets the same certificate.
    pub async fn handshake(
        &mut self,
        config: std::sync::Arc<rustls::ClientConfig>,
        host: &str,
        slot: &Slot,
    ) -> Result<(), Fault> {
        self.tls = Some(Box::new(Tls::new(config, host)?));
        poll_fn(|cx| {
            slot.check(cx)?;
            loop {
                let Some(tls) = &mut self.tls else { unreachable!("set above") };
                let done = tls.shake_hands();
                let flushed = self.poll_flush_tls(cx);
                let done = done?; // after the alert, if there was one, went out
                ready!(flushed)?;
                if done {
                    return Poll::Ready(Ok(()));
                }
                if ready!(self.poll_receive_tls(cx))? == 0 {
                    return Poll::Ready(Err(Fault::transport("closed during the TLS handshake")));
                }
            }
        })
        .await
    }

    fn poll_flush_tls(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(())) };
        let fd = self.tcp.as_raw_fd();
        while !tls.unsent().is_empty() {
            ready!(self.tcp.poll_write_ready(cx)).map_err(|e| io_fault(&e, "write"))?;
            match self.tcp.try_io(Interest::WRITABLE, || raw::send(fd, tls.unsent(), Span::EMPTY)) {
                Ok(n) => tls.mark_sent(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
                Err(e) => return Poll::Ready(Err(io_fault(&e, "write"))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes encrypted bytes from the socket: -> how many, 0 when the peer closed.
    fn poll_receive_tls(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let Some(tls) = &mut self.tls else { unreachable!("only called with TLS") };
        let n = ready!(poll_receive_plain(&self.tcp, cx, tls.free()?))?;
        tls.received(n);
        Poll::Ready(Ok(n))
    }

    /// Receives up to a span's length: -> bytes, 0 when the peer closed.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: Span) -> Poll<Result<usize, Fault>> {
        loop {
            let Some(tls) = &mut self.tls else { return poll_receive_plain(&self.tcp, cx, into) };
            let n = tls.decrypt(into)?;
            if n > 0 || tls.is_closed() {
                return Poll::Ready(Ok(n));
            }
            if ready!(self.poll_receive_tls(cx))? == 0 {
                // Anybody on the way can close a socket. Elsewhere a length tells whether anything is missing.
                if self.until_close {
                    let text = "the connection ended without TLS's own end, so that its answer may be cut short";
                    return Poll::Ready(Err(Fault::transport(text)));
                }
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Sends a head and a body. Where the peer closes or answers before the end, its answer is still to be read.
    pub async fn send(&mut self, slot: &Slot, head: &[u8], body: Span) -> Result<Sent, Fault> {
        if self.tls.is_some() {
            return self.send_tls(slot, head, body).await;
        }
        let forwarded = self.forwarding.as_ref().map(|forwarding| forwarding.rewrite(head));
        let head = forwarded.as_deref().unwrap_or(head);
        let fd = self.tcp.as_raw_fd();
        let total = head.len() + body.len();
        let mut sent = 0;
        if let Ok(n) = raw::send(fd, head, body) {
            // Nearly always there is room, and no need to ask the event loop; what goes wrong shows again below.
            sent = n;
            slot.add_moved(n);
        }
        poll_fn(|cx| {
            slot.check(cx)?;
            if sent == total {
                return Poll::Ready(Ok(Sent::All));
            }
            loop {
                if self.tcp.poll_write_ready(cx).map_err(|e| io_fault(&e, "write"))?.is_pending() {
                    // While the peer does not take more, look whether it has answered already.
                    while self.tcp.poll_read_ready(cx).is_ready() {
                        if raw::is_stale(fd) {
                            return Poll::Ready(Ok(Sent::AnsweredEarly));
                        }
                        // Ready of old, from the last answer: only once that is cleared a new one wakes us.
                        let _ = self.tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                    }
                    return Poll::Pending;
                }
                let from = sent.max(head.len()) - head.len();
                let left = (&head[sent.min(head.len())..], body.slice(from, body.len() - from));
                match self.tcp.try_io(Interest::WRITABLE, || raw::send(fd, left.0, left.1)) {
                    Ok(n) => {
                        sent += n;
                        slot.add_moved(n);
                        if sent == total {
                            return Poll::Ready(Ok(Sent::All));
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
                    // The answer that says why may lie in our socket.
                    Err(_) if sent > 0 && raw::is_stale(fd) => return Poll::Ready(Ok(Sent::AnsweredEarly)),
                    Err(e) => return Poll::Ready(Err(io_fault(&e, "write"))),
                }
            }
        })
        .await
    }

    async fn send_tls(&mut self, slot: &Slot, head: &[u8], body: Span) -> Result<Sent, Fault> {
        let mut scratch = Vec::new();
        let mut at = 0;
        // The head goes into the first record together with the beginning of the body.
        let mut first = head;
        loop {
            let n = (SCRATCH - first.len().min(SCRATCH)).min(body.len() - at);
            let data = if n == 0 {
                first
            } else {
                scratch.resize(first.len() + n, 0);
                scratch[..first.len()].copy_from_slice(first);
                body.copy_to(at, &mut scratch[first.len()..]);
                &scratch
            };
            let Some(tls) = &mut self.tls else { unreachable!("only called with TLS") };
            tls.encrypt(data)?;
            let moved = data.len();
            (first, at) = (&[], at + n);
            let early = poll_fn(|cx| {
                slot.check(cx)?;
                match self.poll_flush_tls(cx) {
                    Poll::Pending => match self.tcp.poll_read_ready(cx) {
                        Poll::Ready(_) => self.poll_has_answer(cx),
                        Poll::Pending => Poll::Pending,
                    },
                    Poll::Ready(Ok(())) => Poll::Ready(Ok(false)),
                    Poll::Ready(Err(e)) => match self.poll_has_answer(cx) {
                        Poll::Ready(Ok(true)) => Poll::Ready(Ok(true)),
                        _ => Poll::Ready(Err(e)),
                    },
                }
            })
            .await?;
            if early {
                return Ok(Sent::AnsweredEarly);
            }
            slot.add_moved(moved);
            if at == body.len() {
                return Ok(Sent::All);
            }
        }
    }

    /// Whether plaintext has come; session tickets and the like are none.
    fn poll_has_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        loop {
            let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(true)) };
            tls.look()?;
            if tls.has_plaintext() {
                return Poll::Ready(Ok(true));
            }
            if tls.is_closed() || ready!(self.poll_receive_tls(cx))? == 0 {
                return Poll::Ready(Err(Fault::transport("closed while sending")));
            }
        }
    }

    /// Reads up to the end of a response's head; interim answers (1xx) are passed over. `None`: closed before its first byte.
    pub async fn read_head(&mut self, slot: &Slot, is_head: bool) -> Result<Option<Head>, Fault> {
        loop {
            while self.filled > self.at {
                match parse_head(&self.head[self.at..self.filled], is_head)? {
                    Some((_, head)) if head.status == 101 => {
                        return Err(Fault::transport("the server switched protocols"));
                    }
                    Some((len, head)) => {
                        self.at += len;
                        if head.status / 100 != 1 {
                            self.until_close = head.length == Length::UntilClose;
                            self.forwarding.as_ref().map_or(Ok(()), |forwarding| forwarding.check(&head))?;
                            self.hurry(head.length);
                            return Ok(Some(head));
                        }
                    }
                    None => break,
                }
            }
            if self.at == self.filled {
                (self.at, self.filled) = (0, 0);
            } else if self.at > 0 {
                self.head.copy_within(self.at..self.filled, 0);
                (self.at, self.filled) = (0, self.filled - self.at);
            }
            if self.filled == self.head.len() {
                if self.filled >= MAX_HEAD {
                    return Err(Fault::transport(format_args!("a response head of more than {MAX_HEAD} bytes")));
                }
                self.head.resize(self.filled * 2, 0);
            }
            let n = self.receive_more(slot).await?;
            if n == 0 {
                let begun = self.filled > 0;
                return if begun { Err(Fault::transport("closed in the middle of a response head")) } else { Ok(None) };
            }
        }
    }

    /// Behind a head whose body has not come with it: a service that sends small pieces one at a time (Nagle's algorithm, as
    /// Ceph's gateway does) sends the next when the last was acknowledged, which the kernel would put off for 40 ms.
    fn hurry(&self, length: Length) {
        let is_empty = self.filled < self.head.len();
        let is_there = match length {
            Length::Fixed(n) => n <= (self.filled - self.at) as u64,
            Length::Chunked | Length::UntilClose => false,
        };
        if is_empty && !is_there {
            raw::acknowledge(self.tcp.as_raw_fd());
        }
    }

    /// Receives into the connection's own buffer, behind what is there.
    async fn receive_more(&mut self, slot: &Slot) -> Result<usize, Fault> {
        let free = raw::span_of_mut(&mut self.head).slice(self.filled, self.head.len() - self.filled);
        let n = poll_fn(|cx| {
            slot.check(cx)?;
            self.poll_receive(cx, free)
        })
        .await?;
        self.filled += n;
        slot.add_moved(n);
        Ok(n)
    }

    /// Fills a span; -> how much came before the peer closed. `progress` is told where it stands even when this fails.
    pub async fn read_into(&mut self, slot: &Slot, into: Span, progress: &mut usize) -> Result<(), Fault> {
        let buffered = (self.filled - self.at).min(into.len());
        into.copy_from(0, &self.head[self.at..self.at + buffered]);
        self.at += buffered;
        *progress += buffered;
        let mut done = buffered;
        slot.add_moved(buffered);
        poll_fn(|cx| {
            slot.check(cx)?;
            while done < into.len() {
                let n = ready!(self.poll_receive(cx, into.slice(done, into.len() - done)))?;
                if n == 0 {
                    let text = format!("the body ended {} bytes early", into.len() - done);
                    return Poll::Ready(Err(Fault::transport(text)));
                }
                done += n;
                *progress += n;
                slot.add_moved(n);
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Whether it can serve another request, as far as is known at the end of one: nothing unread, nothing closed.
    pub fn is_reusable(&mut self, now: Instant) -> bool {
        if self.at < self.filled {
            return false;
        }
        let fd = self.tcp.as_raw_fd();
        let rested = now.saturating_duration_since(self.idle_since).as_millis() >= 1000;
        match &mut self.tls {
            None => !(rested && raw::is_stale(fd)),
            Some(tls) => !(tls.has_plaintext() || tls.is_closed() || rested && is_stale_tls(fd, tls)),
        }
    }

    /// Whether it can serve another request now: it was not closed while it lay idle, and nothing has come that nobody asked
    /// for, which would be taken for the next answer. Costs half a microsecond.
    pub fn is_undisturbed(&mut self) -> bool {
        let fd = self.tcp.as_raw_fd();
        self.at == self.filled
            && match &mut self.tls {
                None => !raw::is_stale(fd),
                Some(tls) => tls.look().is_ok() && !tls.has_plaintext() && !tls.is_closed() && !is_stale_tls(fd, tls),
            }
    }
}

/// Whether an idle connection has ended. Tickets may have come on it, which are no end.
fn is_stale_tls(fd: std::os::fd::RawFd, tls: &mut Tls) -> bool {
    while raw::is_stale(fd) {
        let Ok(n) = tls.free().and_then(|free| raw::recv(fd, free).map_err(Fault::transport)) else { return true };
        tls.received(n);
        if n == 0 || tls.look().is_err() || tls.has_plaintext() || tls.is_closed() {
            return true;
        }
    }
    false
}

/// Receives up to a span's length from a socket: -> bytes, 0 when the peer closed.
fn poll_receive_plain(tcp: &TcpStream, cx: &mut Context<'_>, into: Span) -> Poll<Result<usize, Fault>> {
    let (fd, into) = (tcp.as_raw_fd(), into.for_one_call());
    loop {
        ready!(tcp.poll_read_ready(cx)).map_err(|e| io_fault(&e, "read"))?;
        let mut received = None;
        let result = tcp.try_io(Interest::READABLE, || {
            let n = raw::recv(fd, into)?;
            received = Some(n);
            // The socket is empty now: saying so spares the call that would only find that out.
            if n > 0 && n < into.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (received, result) {
            (Some(n), _) => return Poll::Ready(Ok(n)),
            (None, Err(e)) if e.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(io_fault(&e, "read")));
            }
            _ => (),
        }
    }
}
