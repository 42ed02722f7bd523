//! Bodies of every framing: of a length that the head tells, in chunks, or up to the end of the connection.
use super::{Connection, SCRATCH};
use crate::failure::Fault;
use crate::head::{Length, MAX_HEADERS};
use crate::raw::{self, Span};
use crate::slot::Slot;
use std::future::poll_fn;

/// How far a body was read.
pub struct Reading {
    length: Length,
    /// Of the body, or of the chunk under way.
    left: u64,
    /// A chunk was begun, so that a line's end comes before the next.
    begun: bool,
    ended: bool,
}

impl Reading {
    pub fn new(length: Length) -> Reading {
        let left = if let Length::Fixed(n) = length { n } else { 0 };
        Reading { length, left, begun: false, ended: false }
    }
}

impl Connection {
    /// Receives what comes next of a body into a span that is not empty: -> bytes, 0 when the body has ended.
    pub async fn read_some(&mut self, slot: &Slot, reading: &mut Reading, into: Span) -> Result<usize, Fault> {
        if reading.length == Length::Chunked && reading.left == 0 && !reading.ended {
            if reading.begun && self.read_line(slot).await? != b"" {
                return Err(Fault::transport("a broken chunk"));
            }
            (reading.begun, reading.left) = (true, self.read_chunk_size(slot).await?);
            if reading.left == 0 {
                self.skip_trailers(slot).await?;
            }
        }
        reading.ended |= reading.left == 0 && reading.length != Length::UntilClose;
        if reading.ended {
            return Ok(0);
        }
        let want = match reading.length {
            Length::UntilClose => into.len(),
            _ => usize::try_from(reading.left).unwrap_or(usize::MAX).min(into.len()),
        };
        let n = if self.filled > self.at {
            let n = (self.filled - self.at).min(want);
            into.copy_from(0, &self.head[self.at..self.at + n]);
            self.at += n;
            n
        } else {
            poll_fn(|cx| {
                slot.check(cx)?;
                self.poll_receive(cx, into.slice(0, want))
            })
            .await?
        };
        slot.add_moved(n);
        match reading.length {
            Length::UntilClose => reading.ended = n == 0,
            _ if n == 0 => return Err(Fault::transport("the body ended early")),
            _ => reading.left -= n as u64,
        }
        Ok(n)
    }

    /// Fills a span from the beginning of a body that is known to be as long, whatever its framing. `whole`: it ends there.
    pub async fn read_body(
        &mut self,
        slot: &Slot,
        length: Length,
        into: Span,
        whole: bool,
        progress: &mut usize,
    ) -> Result<(), Fault> {
        if let Length::Fixed(_) = length {
            return self.read_into(slot, into, progress).await;
        }
        let mut reading = Reading::new(length);
        let mut done = 0;
        while done < into.len() {
            let n = self.read_some(slot, &mut reading, into.slice(done, into.len() - done)).await?;
            if n == 0 {
                return Err(Fault::transport(format_args!("the body ended {} bytes early", into.len() - done)));
            }
            done += n;
            *progress += n;
        }
        let mut byte = [0];
        if whole && self.read_some(slot, &mut reading, raw::span_of_mut(&mut byte)).await? > 0 {
            *progress -= done; // which of the two is wrong nobody knows
            return Err(Fault::transport("the body is longer than its head says"));
        }
        Ok(())
    }

    /// A whole body of at most `limit` bytes: error answers, XML.
    pub async fn read_all(&mut self, slot: &Slot, length: Length, limit: usize) -> Result<Vec<u8>, Fault> {
        let too_long = || Fault::transport(format_args!("a response of more than {limit} bytes"));
        let mut body = Vec::new();
        if let Length::Fixed(n) = length {
            let n = usize::try_from(n).ok().filter(|n| *n <= limit).ok_or_else(too_long)?;
            body.resize(n, 0);
            let span = raw::span_of_mut(&mut body);
            self.read_into(slot, span, &mut 0).await?;
            return Ok(body);
        }
        let mut reading = Reading::new(length);
        let mut got = 0;
        loop {
            if got == body.len() {
                if got > limit {
                    return Err(too_long());
                }
                body.resize((got * 2).max(SCRATCH).min(limit + 1), 0);
            }
            let free = raw::span_of_mut(&mut body).slice(got, body.len() - got);
            let n = self.read_some(slot, &mut reading, free).await?;
            if n == 0 {
                body.truncate(got);
                return Ok(body);
            }
            got += n;
        }
    }

    async fn read_chunk_size(&mut self, slot: &Slot) -> Result<u64, Fault> {
        let line = self.read_line(slot).await?;
        let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let text =
            std::str::from_utf8(digits).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = text.and_then(|t| u64::from_str_radix(t, 16).ok()).filter(|n| *n <= raw::MOST as u64);
        size.ok_or_else(|| Fault::transport("a broken chunk size"))
    }

    async fn skip_trailers(&mut self, slot: &Slot) -> Result<(), Fault> {
        for _ in 0..MAX_HEADERS {
            if self.read_line(slot).await?.is_empty() {
                return Ok(());
            }
        }
        Err(Fault::transport("endless trailers"))
    }

    /// A line without its end, of at most a few kilobytes.
    async fn read_line(&mut self, slot: &Slot) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(n) = self.head[self.at..self.filled].iter().position(|b| *b == b'\n') {
                let line = self.head[self.at..self.at + n].trim_ascii_end().to_vec();
                self.at += n + 1;
                return Ok(line);
            }
            self.head.copy_within(self.at..self.filled, 0);
            (self.at, self.filled) = (0, self.filled - self.at);
            if self.filled == self.head.len() {
                return Err(Fault::transport("an endless line in a chunked body"));
            }
            if self.receive_more(slot).await? == 0 {
                return Err(Fault::transport("a chunked body ended early"));
            }
        }
    }
}
