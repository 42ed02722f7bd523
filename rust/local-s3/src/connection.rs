//! One connection: heads and bodies in, answers out, at the pace and with the faults asked for.
use crate::faults::{Effects, Ending};
use crate::incoming::MAX_LINE_BYTES;
use crate::pacer::Pacer;
use crate::request::{MAX_HEAD_BYTES, Request, head_length};
use crate::response::{Body, Response};
use crate::stats::Stats;
use crate::store::content::Piece;
use crate::stream::Stream;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a closing connection waits for the client to take the answer while it still sends.
const LINGER: Duration = Duration::from_secs(2);

pub struct Connection {
    stream: Stream,
    /// Received and not yet used.
    input: BytesMut,
    scratch: Vec<u8>,
    pub stats: Arc<Stats>,
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

impl Connection {
    /// Moves up to `most` bytes from the input or the socket to `out`; an end of the stream is an error here.
    pub async fn take(&mut self, out: &mut BytesMut, most: usize) -> io::Result<usize> {
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

    pub async fn line(&mut self) -> io::Result<String> {
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
