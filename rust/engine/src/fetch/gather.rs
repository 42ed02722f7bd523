//! Bodies whose length nobody tells: in chunks, or up to the end of the connection, behind status 200.
use super::room::extend;
use crate::attempt::{Attempts, Exchange};
use crate::budget::Grant;
use crate::failure::{Fault, Kind, Retry};
use crate::http::Reading;
use crate::raw::{PooledBuffer, span_of_mut};
use crate::slot::Phase;

/// Room for so many bytes is made at first, where no more was reserved; then it doubles.
const FIRST: usize = 256 << 10;

/// Reads the whole body into pooled memory, which is admitted by the budget as it grows: while it is copied to a larger place both
/// places count. More than the budget's limit, or than `size` where the listing told one, is refused.
pub async fn gather(
    attempts: &Attempts<'_>,
    exchange: &mut Exchange,
    size: Option<u64>,
    grant: &mut Option<Grant>,
) -> Result<PooledBuffer, Fault> {
    let most = (attempts.client.budget.limit() as u64).max(size.unwrap_or(0)).min(crate::raw::MOST as u64) as usize;
    let first = grant.as_ref().map_or(0, Grant::bytes).max(FIRST).min(most);
    extend(attempts, grant, first).await?;
    let mut memory = take(attempts, first)?;
    let mut reading = Reading::new(exchange.head.length);
    let (slot, stall) = (attempts.slot, attempts.client.settings.stall_timeout);
    let mut got = 0;
    slot.enter(Phase::Receiving, Some(stall));
    loop {
        if got < memory.len() {
            let free = memory.span().slice(got, memory.len() - got);
            let n = exchange.connection.read_some(slot, &mut reading, free).await?;
            if n == 0 {
                memory.truncate(got);
                return Ok(memory);
            }
            got += n;
            exchange.bytes_in = got as u64;
            continue;
        }
        // Full: only a further byte tells that it does not end here.
        let mut byte = [0];
        if exchange.connection.read_some(slot, &mut reading, span_of_mut(&mut byte)).await? == 0 {
            return Ok(memory);
        }
        if got == most {
            let text = format!(
                "the body has no length, and more than the {most} bytes that may be held of it: read ranges, or raise \
                 memory_limit_bytes"
            );
            return Err(Fault::invalid(text));
        }
        let next = got.saturating_mul(2).min(most);
        extend(attempts, grant, got + next).await?;
        let larger = take(attempts, next)?;
        larger.span().copy_from_span(memory.span());
        larger.span().copy_from(got, &byte);
        memory = larger;
        got += 1;
        if let Some(grant) = grant {
            grant.shrink(next);
        }
        slot.enter(Phase::Receiving, Some(stall));
    }
}

fn take(attempts: &Attempts<'_>, bytes: usize) -> Result<PooledBuffer, Fault> {
    let text = || format!("this machine has no memory for {bytes} bytes at once: read ranges");
    attempts.lane.engine.pool.take(bytes).ok_or_else(|| Fault::new(Kind::Invalid, Retry::Never, text()))
}
