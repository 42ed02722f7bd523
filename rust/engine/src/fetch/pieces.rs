//! One range of a result that is fetched in parallel ranges.
use super::fill;
use super::pin::compare;
use super::verify::verify_piece;
use crate::assembly::Part;
use crate::attempt::Attempts;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::head::Head;

/// Fetches one range of an assembly: -> the attempts it took.
pub async fn run_part(attempts: &mut Attempts<'_>, part: &Part) -> Result<u32, Box<Failure>> {
    let (assembly, piece) = (&part.assembly, part.piece);
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
    fill(attempts, assembly.start + piece.at as u64, span, &mut pin, seen).await?;
    verify_piece(attempts, assembly, piece, &mut pin).await?;
    Ok(attempts.sent)
}
