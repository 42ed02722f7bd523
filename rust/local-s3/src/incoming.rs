//! The body of a request as HTTP frames it.
use crate::connection::Connection;
use crate::error::S3Error;
use crate::faults::{Body, Effects, Ending};
use crate::pacer::Pacer;
use crate::request::Request;
use bytes::BytesMut;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The body of a request as HTTP frames it.
pub struct Incoming<'a> {
    connection: &'a mut Connection,
    framing: Framing,
    continues: bool,
    pacer: Option<Pacer>,
    cut: Option<(u64, Ending)>,
    stall: Option<Duration>,
    /// Bytes to change, by their place.
    corrupt: Vec<(u64, u8)>,
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
pub const MAX_LINE_BYTES: usize = 8 << 10;

impl<'a> Incoming<'a> {
    /// The body of a request whose head was just read from this connection.
    pub fn of(
        connection: &'a mut Connection,
        request: &Request,
        effects: &Effects,
        bytes_per_s: f64,
    ) -> Result<Self, S3Error> {
        let framing = if request.is_chunked() {
            Framing::Chunked(Chunk::Size)
        } else {
            Framing::Length(request.content_length()?.unwrap_or(0))
        };
        Ok(Self {
            pacer: Pacer::new(effects.bytes_per_s.unwrap_or(bytes_per_s)),
            // The bytes of an answer's body are counted where it is sent.
            cut: effects.cut.filter(|_| !matches!(framing, Framing::Length(0))),
            stall: effects.stall,
            corrupt: effects.corruptions(Body::Upload).collect(),
            continues: request.expects_continue(),
            framing,
            received: 0,
            connection,
        })
    }

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
                if !self.connection.interrupt(ending, self.stall).await {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                self.cut = None;
            } else {
                most = most.min((at - self.received) as usize);
            }
        }
        let before = out.len();
        let read = self.read_framed(out, most).await?;
        for (at, xor) in &self.corrupt {
            if let Some(place) = at.checked_sub(self.received).filter(|place| *place < read as u64) {
                out[before + place as usize] ^= xor;
            }
        }
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
