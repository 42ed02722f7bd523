//! One answer as it comes over a connection, in whatever pieces: its head, its framing, its body.
use super::Trial;
use crate::client::Client;
use crate::engine::Engine;
use crate::head::{Length, MAX_HEADERS, parse_head};
use crate::http::{Connection, Reading};
use crate::queue::Queue;
use crate::raw::{Listed, span_of_mut};
use crate::slot::Slot;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

const MOST: usize = 4000;

/// The first byte: what is asked for and how the body is read; the second: where the rest is cut.
pub const STREAM: Trial = Trial {
    name: "stream",
    run: stream,
    rounds: 3_000,
    begin: &[
        b"\x00\x07HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
        b"\x01\x05HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\n\r\nmore",
        b"\x02\x01HTTP/1.1 206 x\r\ntransfer-encoding: Chunked\n\n3\nabc\n0\n\n",
        b"\x03\x09HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nup to the end",
        b"\x12\x0bHTTP/1.0 503 Slow Down\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n",
    ],
    splinters: &[
        b"\r\n",
        b"\n",
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"4000000000001\r\n",
        b"1;",
        b"-1",
        b"+1",
        b"0x1",
        b"HTTP/1.1 102 x\r\n\r\n",
        b"HTTP/1.1 101 x\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"\0",
        b"\xff",
    ],
};

/// An answer's status, its framing and its body as far as it was wanted; None: refused.
type Read = Option<(u16, Length, Option<Vec<u8>>)>;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
    static QUEUE: Arc<Queue> = {
        let engine = Engine::idle(1, 1 << 20);
        let client = Client::new(super::settings(), None, engine.budget.clone());
        Queue::new(engine, Arc::new(client))
    };
}

enum How {
    All,
    Pieces(usize),
    Exactly(usize),
}

fn stream(bytes: &[u8]) {
    let [how, step, bytes @ ..] = bytes else { return };
    let (is_head, n) = (how & 1 == 1, usize::from(how >> 3));
    let how = match how >> 1 & 3 {
        0 => How::All,
        1 | 2 => How::Pieces(n + 1),
        _ => How::Exactly(n),
    };
    if bytes.len() > MOST {
        return; // lines and heads have bounds, which depend on what else lies in the buffer
    }
    let whole = read(bytes, bytes.len(), is_head, &how);
    assert_eq!(whole, read(bytes, usize::from(*step) + 1, is_head, &how), "in pieces");
    let wanted = if let How::Exactly(n) = how { Some(n) } else { None };
    assert_eq!(whole, expected(bytes, is_head, wanted));
}

/// Over a connection that brings so many bytes at once.
fn read(bytes: &[u8], step: usize, is_head: bool, how: &How) -> Read {
    let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
    ours.set_nonblocking(true).expect("not blocking");
    let answer = async {
        let ours = tokio::net::TcpStream::from_std(TcpStream::from(OwnedFd::from(ours))).expect("a stream");
        let mut connection = Connection::new(Listed::of(ours));
        let slot = Slot::new(QUEUE.with(Arc::clone), 0);
        let head = connection.read_head(&slot, is_head).await.ok()??;
        let body = read_body(&mut connection, &slot, head.length, how).await;
        Some((head.status, head.length, body))
    };
    let server = async move {
        for piece in bytes.chunks(step.max(1)) {
            if theirs.write_all(piece).is_err() {
                return; // it was refused before its end
            }
            tokio::task::yield_now().await;
        }
    };
    let (mut server, mut answer, mut sent) = (pin!(server), pin!(answer), false);
    let both = poll_fn(|cx| {
        sent = sent || server.as_mut().poll(cx).is_ready();
        answer.as_mut().poll(cx)
    });
    RUNTIME.with(|runtime| runtime.block_on(both))
}

async fn read_body(connection: &mut Connection, slot: &Slot, length: Length, how: &How) -> Option<Vec<u8>> {
    match *how {
        How::All => connection.read_all(slot, length, MOST).await.ok(),
        How::Pieces(most) => {
            let (mut reading, mut piece, mut body) = (Reading::new(length), vec![0; most], Vec::new());
            loop {
                match connection.read_some(slot, &mut reading, span_of_mut(&mut piece)).await.ok()? {
                    0 => return Some(body),
                    n => body.extend_from_slice(&piece[..n]),
                }
            }
        }
        How::Exactly(n) => {
            if matches!(length, Length::Fixed(told) if told < n as u64) {
                return None; // nobody asks for more than the head tells of
            }
            let (mut body, mut progress) = (vec![0; n], 0);
            let result = connection.read_body(slot, length, span_of_mut(&mut body), true, &mut progress).await;
            assert!(progress <= n && (result.is_err() || progress == n));
            result.ok().map(|()| body)
        }
    }
}

/// The same of all bytes at once. `wanted`: so much of the body, which is its end where the head does not tell its length.
pub fn expected(mut bytes: &[u8], is_head: bool, wanted: Option<usize>) -> Read {
    loop {
        let (len, head) = parse_head(bytes, is_head).ok()??;
        bytes = &bytes[len..];
        match head.status {
            101 => return None,
            100..200 => continue,
            _ => (),
        }
        let body = match head.length {
            Length::Fixed(told) => match (usize::try_from(told).unwrap_or(usize::MAX), wanted) {
                (told, Some(wanted)) if wanted > told => None,
                (told, wanted) => bytes.get(..wanted.unwrap_or(told)).map(<[u8]>::to_vec),
            },
            Length::UntilClose => Some(bytes.to_vec()).filter(|body| wanted.is_none_or(|n| n == body.len())),
            Length::Chunked => unchunked(bytes).filter(|body| wanted.is_none_or(|n| n == body.len())),
        };
        return Some((head.status, head.length, body));
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let end = rest.iter().position(|b| *b == b'\n')?;
        let line = rest[..end].trim_ascii_end();
        *rest = &rest[end + 1..];
        Some(line)
    }
    let mut body = Vec::new();
    loop {
        let size = std::str::from_utf8(line(&mut rest)?.split(|b| *b == b';').next()?).ok()?.trim_ascii();
        let size = usize::from_str_radix(size, 16).ok().filter(|_| !size.starts_with('+'))?;
        if size == 0 {
            for _ in 0..MAX_HEADERS {
                if line(&mut rest)?.is_empty() {
                    return Some(body);
                }
            }
            return None;
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = &rest[size..];
        if !line(&mut rest)?.is_empty() {
            return None;
        }
    }
}
