//! Answers on their way out, at the pace and with the faults asked for.
use crate::connection::Connection;
use crate::faults::{Body as Part, Chunks, Effects};
use crate::pacer::Pacer;
use crate::response::{Body, Response, reason};
use crate::store::content::Piece;
use crate::stream::Stream;
use bytes::{Buf, BytesMut};
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

impl Connection {
    /// Writes an answer; the number of body bytes sent, and whether the connection can go on.
    pub async fn respond(
        &mut self,
        response: Response,
        effects: &Effects,
        date: &str,
        request_id: &str,
        bytes_per_s: f64,
    ) -> io::Result<(u64, bool)> {
        let mut pending = BytesMut::from(&response.head(effects, date, request_id)[..]);
        if let Some(status) = effects.interim {
            self.write_raw(format!("HTTP/1.1 {status} {}\r\n\r\n", reason(status)).as_bytes()).await?;
        }
        if let Some((at, ending)) = effects.cut_head {
            let start = pending.split_to(usize::try_from(at).unwrap_or(usize::MAX).min(pending.len()));
            self.write_raw(&start).await?;
            if !self.interrupt(ending, effects.stall).await {
                return Ok((0, false));
            }
        }
        if effects.split_head {
            self.write_in_bytes(&pending.split()).await?;
        }
        let (sent, is_whole) = self.write_body(&response, effects, pending, bytes_per_s).await?;
        self.stats.bytes_out.fetch_add(sent, Ordering::Relaxed);
        Ok((sent, is_whole && !response.close && !effects.close_after && !effects.misleads()))
    }

    async fn write_in_bytes(&mut self, head: &[u8]) -> io::Result<()> {
        for (place, byte) in head.iter().enumerate() {
            self.write_raw(&[*byte]).await?;
            // Pauses make the client see single bytes; after the first line they would only cost time.
            if place < 32 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Writes a body behind what is pending of the head; the bytes sent, and whether that was all.
    async fn write_body(
        &mut self,
        response: &Response,
        effects: &Effects,
        mut pending: BytesMut,
        bytes_per_s: f64,
    ) -> io::Result<(u64, bool)> {
        let total = response.body.len();
        let chunks = response.chunks(effects).filter(|_| response.announced.is_none());
        let corrupt = corruptions(&response.body, effects);
        let mut pacer = Pacer::new(effects.bytes_per_s.unwrap_or(bytes_per_s));
        let mut cut = effects.cut.filter(|(at, _)| *at < total || (total > 0 && *at == total));
        let (mut sent, mut left_of_chunk) = (0, 0);
        loop {
            if let Some((_, ending)) = cut.take_if(|(at, _)| *at == sent) {
                self.write_raw(&pending.split()).await?;
                if !self.interrupt(ending, effects.stall).await {
                    return Ok((sent, false));
                }
            }
            if sent == total {
                break;
            }
            let piece = response.body.piece(sent, &mut self.scratch).await?;
            let available = match &piece {
                Piece::Shared(bytes) => bytes.len() as u64,
                Piece::Scratch(length) => *length as u64,
            };
            let paced = pacer.as_ref().map_or(u64::MAX, |pacer| pacer.piece_bytes() as u64);
            let mut length = available.min(total - sent).min(paced);
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(chunks) = chunks {
                if left_of_chunk == 0 {
                    left_of_chunk = length.min(chunks.most_bytes);
                    begin_chunk(&mut pending, left_of_chunk, chunks);
                }
                length = length.min(left_of_chunk);
            }
            // A cut within a chunk leaves it shorter than it said.
            length = cut.map_or(length, |(at, _)| length.min(at - sent));
            let changed = changed_piece(&piece, &self.scratch, sent, length as usize, &corrupt);
            let bytes: &[u8] = match (&changed, &piece) {
                (Some(changed), _) => changed,
                (None, Piece::Shared(bytes)) => &bytes[..length as usize],
                (None, Piece::Scratch(_)) => &self.scratch[..length as usize],
            };
            write_both(&mut self.stream, &mut pending, bytes).await?;
            sent += length;
            if chunks.is_some() {
                left_of_chunk -= length;
                if left_of_chunk == 0 {
                    pending.extend_from_slice(b"\r\n");
                }
            }
            if let Some(pacer) = &mut pacer {
                pacer.moved(length).await;
            }
        }
        if let Some(chunks) = chunks {
            let trailers = if chunks.trailers { "x-amz-meta-late: 1\r\nx-amz-meta-later: 2\r\n" } else { "" };
            pending.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        }
        self.write_raw(&pending).await?;
        Ok((sent, true))
    }
}

fn begin_chunk(pending: &mut BytesMut, length: u64, chunks: Chunks) {
    let extension = if chunks.extensions { ";name=value;quoted=\"a;b\"" } else { "" };
    pending.extend_from_slice(format!("{length:x}{extension}\r\n").as_bytes());
}

/// The bytes to change, by their place in the body.
fn corruptions(body: &Body, effects: &Effects) -> Vec<(u64, u8)> {
    let mut found: Vec<_> = effects.corruptions(Part::Answer).collect();
    if let Body::Object { start, end, .. } = body {
        let of_object = effects.corruptions(Part::Object).filter(|(at, _)| (*start..*end).contains(at));
        found.extend(of_object.map(|(at, xor)| (at - start, xor)));
    }
    found
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
async fn write_both(stream: &mut Stream, pending: &mut BytesMut, mut body: &[u8]) -> io::Result<()> {
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
