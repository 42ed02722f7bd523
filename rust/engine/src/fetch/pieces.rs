//! One range of a result that is fetched in parallel ranges.
use super::pin::compare;
use super::{Meta, fill, outcome};
use crate::attempt::Attempts;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::head::Head;
use crate::lane::Lane;
use crate::request::{Assembly, AssemblyState, Outcome, Piece};
use std::sync::Arc;

/// One range of an assembly.
pub async fn run_piece(attempts: &mut Attempts<'_>, assembly: &Arc<Assembly>, piece: Piece) {
    let mut pin = assembly.lock().etag.clone();
    let span = assembly.destination.slice(piece.at, piece.len);
    let seen = |head: &Head, object_size: u64| {
        let mut state = assembly.lock();
        if let Some(etag) = &state.etag {
            compare(etag, &head.etag)?;
        } else {
            state.etag = Some(head.etag.clone()).filter(|e| !e.is_empty());
        }
        if state.head.is_empty() {
            state.head = head.raw.clone();
            state.last_modified = head.last_modified;
            let planned = std::mem::replace(&mut state.object_size, object_size);
            let to_the_end = planned > 0 && assembly.start + assembly.destination.len() as u64 == planned;
            if planned > object_size || to_the_end && planned != object_size {
                let text = format!("the object was {planned} bytes long when it was listed, and is {object_size} now");
                return Err(Fault::new(Kind::Changed, Retry::Never, text));
            }
        }
        Ok(())
    };
    let result = fill(attempts, assembly.start + piece.at as u64, span, &mut pin, seen).await;
    end_piece(attempts.lane, assembly, result.map(|()| attempts.sent));
}

/// Counts a piece as done; the last one files the result.
pub fn end_piece(lane: &Lane, assembly: &Arc<Assembly>, result: Result<u32, Box<Failure>>) {
    let mut state = assembly.lock();
    state.in_flight -= 1;
    match result {
        Ok(sent) => state.attempts += sent,
        Err(failure) => {
            state.next = assembly.destination.len();
            state.failure.get_or_insert(*failure);
        }
    }
    if state.in_flight > 0 || state.next < assembly.destination.len() {
        return;
    }
    let AssemblyState { etag, object_size, last_modified, head, failure, buffer, grant, .. } =
        std::mem::take(&mut *state);
    // Late lookers at this assembly find it exhausted.
    state.next = assembly.destination.len();
    drop(state);
    match failure {
        Some(failure) => lane.finish(assembly.queue.clone(), assembly.index, Outcome::Failure(Box::new(failure)), None),
        None => {
            let meta = Meta { etag: etag.unwrap_or_default(), object_size, last_modified, head };
            let outcome = outcome(&assembly.target, buffer, assembly.start, assembly.destination.len(), meta);
            lane.finish(assembly.queue.clone(), assembly.index, outcome, grant);
        }
    }
}
