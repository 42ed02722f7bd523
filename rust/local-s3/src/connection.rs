//! One connection: heads and bodies in, answers out, at the pace and with the faults asked for.
use crate::error::S3Error;
use crate::faults::{Effects, Ending};
use crate::request::{MAX_HEAD_BYTES, Request, head_length};
use crate::stats::Stats;
use crate::store::bucket::Object;
use crate::store::content::{PIECE_BYTES, Piece};
use crate::stream::Stream;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An answer before it is put on the wire.
pub struct Response {
    pub status: u16,
    /// Lines of the head, each with its line end.
    lines: Vec<u8>,
    pub body: Body,
    /// The length to announce where it is not that of the body (HEAD).
    pub announced: Option<u64>,
    pub close: bool,
    /// S3's error code, for the log.
    pub code: Option<String>,
}

pub enum Body {
    Empty,
    Bytes(Bytes),
    Object { object: Arc<Object>, start: u64, end: u64 },
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Object { start, end, .. } => end - start,
        }
    }

    /// The bytes from `at` on, as many as are at hand at once.
    async fn piece(&self, at: u64, scratch: &mut Vec<u8>) -> io::Result<Piece> {
        match self {
            Self::Empty => Ok(Piece::Shared(Bytes::new())),
            Self::Bytes(bytes) => Ok(Piece::Shared(bytes.slice(at as usize..))),
            Self::Object { object, start, end } => object.content.piece(start + at, *end, scratch).await,
        }
    }
}

impl Response {
    pub fn new(status: u16) -> Self {
        let lines = Vec::with_capacity(512);
        Self { status, lines, body: Body::Empty, announced: None, close: false, code: None }
    }

    pub fn xml(document: String) -> Self {
        let mut response = Self::new(200);
        response.header("Content-Type", "application/xml");
        response.body = Body::Bytes(document.into());
        response
    }

    pub fn error(error: &S3Error, resource: &str, request_id: &str) -> Self {
        let mut response = Self::new(error.status);
        for (name, value) in &error.headers {
            response.header(name, value);
        }
        response.code = Some(error.code.to_string());
        response.close = error.close;
        if error.status != 304 {
            response.header("Content-Type", "application/xml");
            response.body = Body::Bytes(error.xml(resource, request_id).into());
        }
        response
    }

    pub fn header(&mut self, name: &str, value: impl AsRef<str>) {
        self.lines.extend_from_slice(name.as_bytes());
        self.lines.extend_from_slice(b": ");
        // A line end in a value would start another header.
        self.lines.extend(value.as_ref().bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.lines.extend_from_slice(b"\r\n");
    }

    /// For HEAD: the head that the body would have had, without it.
    pub fn drop_body(&mut self) {
        self.announced.get_or_insert(self.body.len());
        self.body = Body::Empty;
    }

    fn head(&self, effects: &Effects, date: &str, request_id: &str) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.lines.len() + 256);
        head.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).as_bytes());
        head.extend_from_slice(format!("x-amz-request-id: {request_id}\r\nx-amz-id-2: local-s3\r\n").as_bytes());
        head.extend_from_slice(format!("Date: {date}\r\nServer: local-s3\r\n").as_bytes());
        head.extend_from_slice(&self.lines);
        let length = self.announced.unwrap_or(self.body.len());
        if effects.chunked && self.announced.is_none() {
            head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if !matches!(self.status, 204 | 304) {
            let length = length.saturating_add_signed(effects.length_delta);
            head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        if self.close {
            head.extend_from_slice(b"Connection: close\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        416 => "Requested Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Slow Down",
        _ => "Status",
    }
}

/// Keeps bytes to so many a second.
struct Pacer {
    bytes_per_s: f64,
    start: Instant,
    moved: u64,
}

impl Pacer {
    fn new(bytes_per_s: f64) -> Option<Self> {
        (bytes_per_s > 0.0).then(|| Self { bytes_per_s, start: Instant::now(), moved: 0 })
    }

    /// About 5 ms of bytes: finer than what a client could tell from an even flow.
    fn piece_bytes(&self) -> usize {
        (self.bytes_per_s * 0.005).clamp(1.0, PIECE_BYTES as f64) as usize
    }

    async fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        let due = Duration::from_secs_f64(self.moved as f64 / self.bytes_per_s);
        let ahead = due.saturating_sub(self.start.elapsed());
        // Timers have a resolution of 1 ms; what is less is made up for at the next piece.
        if ahead > Duration::from_millis(1) {
            tokio::time::sleep(ahead).await;
        }
    }
}

/// How long a closing connection waits for the client to take the answer while it still sends.
const LINGER: Duration = Duration::from_secs(2);

pub struct Connection {
    stream: Stream,
    /// Received and not yet used.
    input: BytesMut,
    scratch: Vec<u8>,
    stats: Arc<Stats>,
    /// Ended by a fault; there is nothing left to do politely.
    ended: bool,
}

impl Connection {
    pub fn new(stream: Stream, stats: Arc<Stats>) -> Self {
        Self { stream, input: BytesMut::with_capacity(8 << 10), scratch: Vec::new(), stats, ended: false }
    }

    /// The next head. None when the client has gone, kept silent for `idle`, or sent something else than HTTP.
    pub async fn next_request(&mut self, idle: Option<Duration>) -> io::Result<Option<Request>> {
        loop {
            match head_length(&self.input) {
                Ok(Some(length)) => {
                    let head = self.input.split_to(length).freeze();
                    return Ok(Request::parse(head).ok());
                }
                Ok(None) if self.input.len() <= MAX_HEAD_BYTES => {}
                _ => {
                    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    self.stream.write_all(answer).await?;
                    return Ok(None);
                }
            }
            let is_idle = self.input.is_empty();
            let reading = self.stream.read_buf(&mut self.input);
            let read = match idle {
                Some(limit) if is_idle => match tokio::time::timeout(limit, reading).await {
                    Ok(read) => read?,
                    Err(_) => return Ok(None),
                },
                _ => reading.await?,
            };
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// The body of a request whose head was just read.
    pub fn body(&mut self, request: &Request, effects: &Effects, bytes_per_s: f64) -> Result<Incoming<'_>, S3Error> {
        let framing = if request.is_chunked() {
            Framing::Chunked(Chunk::Size)
        } else {
            Framing::Length(request.content_length()?.unwrap_or(0))
        };
        Ok(Incoming {
            pacer: Pacer::new(effects.bytes_per_s.unwrap_or(bytes_per_s)),
            // The bytes of an answer's body are counted where it is sent.
            cut: effects.cut.filter(|_| !matches!(framing, Framing::Length(0))),
            stall: effects.stall,
            continues: request.expects_continue(),
            framing,
            received: 0,
            connection: self,
        })
    }

    /// Writes an answer; the number of body bytes sent, and whether the connection can go on.
    pub async fn respond(
        &mut self,
        response: Response,
        effects: &Effects,
        date: &str,
        request_id: &str,
        bytes_per_s: f64,
    ) -> io::Result<(u64, bool)> {
        let head = response.head(effects, date, request_id);
        let mut pacer = Pacer::new(effects.bytes_per_s.unwrap_or(bytes_per_s));
        let mut pending = Bytes::from(head);
        if effects.split_head {
            for (place, byte) in pending.split_off(0).into_iter().enumerate() {
                self.stream.write_all(&[byte]).await?;
                self.stream.flush().await?;
                // Pauses make the client see single bytes; after the first line they would only cost time.
                if place < 32 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
        let total = response.body.len();
        let limit = effects.cut.map_or(total, |(at, _)| at.min(total));
        let mut sent = 0;
        while sent < limit {
            let piece = response.body.piece(sent, &mut self.scratch).await?;
            let most = (limit - sent).min(pacer.as_ref().map_or(u64::MAX, |p| p.piece_bytes() as u64)) as usize;
            let available = match &piece {
                Piece::Shared(bytes) => bytes.len(),
                Piece::Scratch(length) => *length,
            };
            let length = available.min(most);
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let changed = changed_piece(&piece, &self.scratch, sent, length, &effects.corrupt);
            let bytes: &[u8] = match (&changed, &piece) {
                (Some(changed), _) => changed,
                (None, Piece::Shared(bytes)) => &bytes[..length],
                (None, Piece::Scratch(_)) => &self.scratch[..length],
            };
            if effects.chunked {
                let mut framed = BytesMut::from(&pending[..]);
                framed.extend_from_slice(format!("{length:x}\r\n").as_bytes());
                pending = framed.freeze();
            }
            write_both(&mut self.stream, &mut pending, bytes).await?;
            if effects.chunked {
                pending = Bytes::from_static(b"\r\n");
            }
            sent += length as u64;
            if let Some(pacer) = &mut pacer {
                pacer.moved(length as u64).await;
            }
        }
        let cut = effects.cut.filter(|(at, _)| *at < total || (total > 0 && *at == total));
        if effects.chunked && response.announced.is_none() && cut.is_none() {
            let mut framed = BytesMut::from(&pending[..]);
            framed.extend_from_slice(b"0\r\n\r\n");
            pending = framed.freeze();
        }
        write_both(&mut self.stream, &mut pending, &[]).await?;
        self.stream.flush().await?;
        self.stats.bytes_out.fetch_add(sent, Ordering::Relaxed);
        if let Some((_, ending)) = cut {
            if ending == Ending::Stall && effects.stall.is_some() {
                tokio::time::sleep(effects.stall.unwrap_or_default()).await;
                return self.rest(&response.body, sent).await.map(|sent| (sent, !response.close));
            }
            self.end(ending, effects.stall).await;
            return Ok((sent, false));
        }
        Ok((sent, !response.close && !effects.close_after && effects.length_delta == 0))
    }

    /// What remains of a body after a stall.
    async fn rest(&mut self, body: &Body, mut sent: u64) -> io::Result<u64> {
        while sent < body.len() {
            let piece = body.piece(sent, &mut self.scratch).await?;
            let bytes = match &piece {
                Piece::Shared(bytes) => &bytes[..],
                Piece::Scratch(length) => &self.scratch[..*length],
            };
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.stream.write_all(bytes).await?;
            sent += bytes.len() as u64;
        }
        self.stream.flush().await?;
        Ok(sent)
    }

    /// Bytes that are no answer of the server's making.
    pub async fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Ends the connection in one of the ways of the fault plan. It is not to be used afterwards.
    pub async fn end(&mut self, ending: Ending, stall: Option<Duration>) {
        match ending {
            Ending::Close => self.close().await,
            Ending::Reset => self.stream.reset_on_drop(),
            Ending::Stall => {
                let silence = async {
                    // Ends when the client gives up; what it still sends is not looked at.
                    let mut sink = [0; 4096];
                    while matches!(self.stream.read(&mut sink).await, Ok(read) if read > 0) {}
                };
                // A day is for good.
                let _ = tokio::time::timeout(stall.unwrap_or(Duration::from_secs(86_400)), silence).await;
            }
        }
        self.ended = true;
    }

    /// FIN; then reads what is still on its way, because unread bytes would turn it into RST and the client might
    /// lose an answer that it has not read yet.
    pub async fn close(&mut self) {
        if self.ended || self.stream.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            let mut sink = vec![0; 64 << 10];
            while matches!(self.stream.read(&mut sink).await, Ok(read) if read > 0) {}
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

/// A copy of the piece with the bytes changed that a fault asks for, if any lies in it.
fn changed_piece(piece: &Piece, scratch: &[u8], at: u64, length: usize, corrupt: &[(u64, u8)]) -> Option<Vec<u8>> {
    let hits = |place: u64| place >= at && place < at + length as u64;
    if !corrupt.iter().any(|(place, _)| hits(*place)) {
        return None;
    }
    let mut bytes = match piece {
        Piece::Shared(bytes) => bytes[..length].to_vec(),
        Piece::Scratch(_) => scratch[..length].to_vec(),
    };
    for (place, xor) in corrupt.iter().filter(|(place, _)| hits(*place)) {
        bytes[(place - at) as usize] ^= xor;
    }
    Some(bytes)
}

/// Writes what is pending and a piece of body in as few calls as the socket allows.
async fn write_both(stream: &mut Stream, pending: &mut Bytes, mut body: &[u8]) -> io::Result<()> {
    while !pending.is_empty() && !body.is_empty() {
        let written = stream.write_vectored(&[IoSlice::new(pending), IoSlice::new(body)]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let head = written.min(pending.len());
        pending.advance(head);
        body = &body[written - head..];
    }
    stream.write_all(pending).await?;
    pending.clear();
    stream.write_all(body).await
}

/// The body of a request as HTTP frames it.
pub struct Incoming<'a> {
    connection: &'a mut Connection,
    framing: Framing,
    continues: bool,
    pacer: Option<Pacer>,
    cut: Option<(u64, Ending)>,
    stall: Option<Duration>,
    pub received: u64,
}

enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunk),
}

enum Chunk {
    Size,
    Data(u64),
    /// The line end after data.
    End,
    Trailers,
    Done,
}

/// Lines of chunked framing are short; longer ones are an attack or a mistake.
const MAX_LINE_BYTES: usize = 8 << 10;

impl Incoming<'_> {
    /// Whether every byte has been read.
    pub fn is_done(&self) -> bool {
        matches!(self.framing, Framing::Length(0) | Framing::Chunked(Chunk::Done))
    }

    /// Whether the client waits for "100 Continue" and may not send the body at all.
    pub fn is_waited_for(&self) -> bool {
        self.continues
    }

    /// Appends up to `most` bytes of the body to `out`; 0 at its end.
    pub async fn read(&mut self, out: &mut BytesMut, most: usize) -> io::Result<usize> {
        if self.is_done() || most == 0 {
            return Ok(0);
        }
        if self.continues {
            self.continues = false;
            self.connection.write_raw(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut most = most.min(self.pacer.as_ref().map_or(usize::MAX, Pacer::piece_bytes));
        if let Some((at, ending)) = self.cut {
            if self.received >= at {
                match (ending, self.stall) {
                    (Ending::Stall, Some(duration)) => {
                        self.cut = None;
                        tokio::time::sleep(duration).await;
                    }
                    _ => {
                        self.connection.end(ending, self.stall).await;
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
            } else {
                most = most.min((at - self.received) as usize);
            }
        }
        let read = self.read_framed(out, most).await?;
        self.received += read as u64;
        self.connection.stats.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
        if let Some(pacer) = &mut self.pacer {
            pacer.moved(read as u64).await;
        }
        Ok(read)
    }

    async fn read_framed(&mut self, out: &mut BytesMut, most: usize) -> io::Result<usize> {
        loop {
            match &mut self.framing {
                Framing::Length(left) => {
                    let read = self.connection.take(out, most.min(usize::try_from(*left).unwrap_or(most))).await?;
                    *left -= read as u64;
                    return Ok(read);
                }
                Framing::Chunked(Chunk::Data(left)) => {
                    let read = self.connection.take(out, most.min(usize::try_from(*left).unwrap_or(most))).await?;
                    *left -= read as u64;
                    if *left == 0 {
                        self.framing = Framing::Chunked(Chunk::End);
                    }
                    return Ok(read);
                }
                Framing::Chunked(Chunk::Size) => {
                    let line = self.connection.line().await?;
                    let digits = line.split(';').next().unwrap_or("").trim();
                    let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                    self.framing = Framing::Chunked(if size == 0 { Chunk::Trailers } else { Chunk::Data(size) });
                }
                Framing::Chunked(Chunk::End) => {
                    self.connection.line().await?;
                    self.framing = Framing::Chunked(Chunk::Size);
                }
                Framing::Chunked(Chunk::Trailers) => {
                    if self.connection.line().await?.is_empty() {
                        self.framing = Framing::Chunked(Chunk::Done);
                    }
                }
                Framing::Chunked(Chunk::Done) => return Ok(0),
            }
        }
    }

    /// Reads and forgets up to `most` bytes; whether that was all.
    pub async fn skip(&mut self, most: u64) -> io::Result<bool> {
        let mut sink = BytesMut::new();
        let start = self.received;
        while self.received - start < most {
            sink.clear();
            let left = most - (self.received - start);
            if self.read(&mut sink, (64 << 10).min(left as usize)).await? == 0 {
                break;
            }
        }
        Ok(self.is_done())
    }
}

impl Connection {
    /// Moves up to `most` bytes from the input or the socket to `out`; an end of the stream is an error here.
    async fn take(&mut self, out: &mut BytesMut, most: usize) -> io::Result<usize> {
        if !self.input.is_empty() {
            let length = most.min(self.input.len());
            out.extend_from_slice(&self.input[..length]);
            self.input.advance(length);
            return Ok(length);
        }
        match self.stream.read_buf(&mut out.limit(most)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line = self.input.split_to(end + 1);
                let line = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::InvalidData)?;
                return String::from_utf8(line.to_vec()).map_err(io::Error::other);
            }
            if self.input.len() > MAX_LINE_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
