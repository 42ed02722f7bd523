//! One connection: heads and bodies in, and the ways in which it ends.
use crate::faults::Ending;
use crate::incoming::MAX_LINE_BYTES;
use crate::request::{MAX_HEAD_BYTES, Request, head_length};
use crate::stats::Stats;
use crate::stream::Stream;
use bytes::{Buf, BufMut, BytesMut};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a closing connection waits for the client to take the answer while it still sends.
const LINGER: Duration = Duration::from_secs(2);

pub struct Connection {
    pub stream: Stream,
    /// Received and not yet used.
    input: BytesMut,
    /// Where bytes of an object are put that are not in memory as they are.
    pub scratch: Vec<u8>,
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

    /// Where a fault cuts: a stall that is over goes on, everything else ends the connection. Whether it goes on.
    pub async fn interrupt(&mut self, ending: Ending, stall: Option<Duration>) -> bool {
        match (ending, stall) {
            (Ending::Stall, Some(duration)) => {
                tokio::time::sleep(duration).await;
                true
            }
            _ => {
                self.end(ending, stall).await;
                false
            }
        }
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
