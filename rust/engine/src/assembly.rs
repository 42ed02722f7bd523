//! One result that is fetched in parallel ranges, each straight into its place.
use crate::budget::Grant;
use crate::checksum::Algorithm;
use crate::failure::Failure;
use crate::queue::Queue;
use crate::raw::{PooledBuffer, Span};
use crate::request::{Check, Meta, Target};
use crate::sync::{Mutex, MutexGuard};
use crate::ticket::{Finished, Ticket, broken};
use std::sync::Arc;

/// Part of an assembly: offset in its destination, and length.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub at: usize,
    pub len: usize,
}

pub struct Assembly {
    pub queue: Arc<Queue>,
    pub index: u64,
    pub target: Target,
    pub destination: Span,
    /// Where in the object the destination's first byte comes from.
    pub start: u64,
    pub part_size: usize,
    /// `Stored` where it is a whole object only.
    pub check: Check,
    pub state: Mutex<AssemblyState>,
}

#[derive(Default)]
pub struct AssemblyState {
    /// Whoever ends the last piece files the result.
    pub ticket: Option<Ticket>,
    /// Offset of the first byte that nobody was asked to fetch yet.
    pub next: usize,
    pub in_flight: usize,
    /// The pin given, or the ETag of whichever answer came first.
    pub etag: Option<String>,
    pub object_size: u64,
    pub last_modified: Option<i64>,
    pub head: Box<[u8]>,
    pub failure: Option<Failure>,
    pub buffer: Option<PooledBuffer>,
    pub grant: Option<Grant>,
    pub attempts: u32,
    /// The checksums of the pieces that are there, the one that the service has stored, and the one that is to be told.
    pub sums: Vec<(Piece, u64)>,
    pub stored: Option<(Algorithm, String)>,
    pub checksum: String,
}

/// A piece that somebody fetches. Dropped without an end, it ends as failed, so that no assembly waits for it for ever.
pub struct Part {
    pub assembly: Arc<Assembly>,
    pub piece: Piece,
    ended: bool,
}

impl Assembly {
    /// `begun`: its first piece, which is being fetched already.
    pub fn new(
        ticket: Ticket,
        destination: Span,
        start: u64,
        part_size: usize,
        begun: Option<Piece>,
        check: Check,
        state: AssemblyState,
    ) -> (Arc<Assembly>, Option<Part>) {
        let (queue, index, target) = (ticket.queue().clone(), ticket.index, ticket.target.clone());
        let (next, in_flight) = begun.map_or((0, 0), |piece| (piece.at + piece.len, 1));
        let state = Mutex::new(AssemblyState { ticket: Some(ticket), next, in_flight, ..state });
        let assembly = Arc::new(Assembly { queue, index, target, destination, start, part_size, check, state });
        let part = begun.map(|piece| Part { assembly: assembly.clone(), piece, ended: false });
        (assembly, part)
    }

    pub fn lock(&self) -> MutexGuard<'_, AssemblyState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The next piece to fetch; None when all were handed out, or one failed.
    pub fn next_part(self: &Arc<Self>) -> Option<Part> {
        let mut state = self.lock();
        if state.failure.is_some() || state.next >= self.destination.len() {
            return None;
        }
        let piece = Piece { at: state.next, len: self.part_size.min(self.destination.len() - state.next) };
        state.next += piece.len;
        state.in_flight += 1;
        Some(Part { assembly: self.clone(), piece, ended: false })
    }

    /// Notes the checksum of a piece that is there. -> all of them, after the last.
    pub fn note_sum(&self, piece: Piece, sum: u64) -> Option<Vec<(Piece, u64)>> {
        let mut state = self.lock();
        state.sums.push((piece, sum));
        let there: usize = state.sums.iter().map(|(piece, _)| piece.len).sum();
        (there == self.destination.len()).then(|| std::mem::take(&mut state.sums))
    }

    pub fn exhausted(&self) -> bool {
        let state = self.lock();
        state.failure.is_some() || state.next >= self.destination.len()
    }

    /// No further piece begins. -> the result, when none is under way whose end would bring it.
    pub fn call_off(&self, failure: Failure) -> Option<Finished> {
        let mut state = self.lock();
        state.next = self.destination.len();
        state.failure.get_or_insert(failure);
        if state.in_flight == 0 { self.result(state) } else { None }
    }

    /// What was fetched, or why it was not.
    fn result(&self, mut state: MutexGuard<'_, AssemblyState>) -> Option<Finished> {
        let AssemblyState { ticket, etag, object_size, last_modified, head, failure, buffer, grant, checksum, .. } =
            std::mem::take(&mut *state);
        // Late lookers at this assembly find it exhausted.
        state.next = self.destination.len();
        drop(state);
        let ticket = ticket?;
        Some(match failure {
            Some(failure) => ticket.fail(failure),
            None => {
                let meta = Meta { etag: etag.unwrap_or_default(), object_size, last_modified, head, checksum };
                let outcome = meta.outcome(&self.target, buffer, self.start, self.destination.len());
                ticket.finish(outcome, grant)
            }
        })
    }
}

impl Part {
    /// -> the whole result, after the last piece. `sent`: the attempts it took.
    pub fn end(mut self, result: Result<u32, Box<Failure>>) -> Option<Finished> {
        self.ended = true;
        self.assembly.end(result)
    }
}

impl Assembly {
    fn end(&self, result: Result<u32, Box<Failure>>) -> Option<Finished> {
        let mut state = self.lock();
        state.in_flight -= 1;
        match result {
            Ok(sent) => state.attempts += sent,
            Err(failure) => {
                state.next = self.destination.len();
                state.failure.get_or_insert(*failure);
            }
        }
        if state.in_flight > 0 || state.next < self.destination.len() { None } else { self.result(state) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.ended {
            let failure = broken("GetObject", &self.assembly.target, "an engine thread panicked");
            if let Some(finished) = self.assembly.end(Err(Box::new(failure))) {
                finished.file();
            }
        }
    }
}
