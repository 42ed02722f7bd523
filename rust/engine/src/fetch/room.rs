//! Room in the byte budget for what an answer turned out to need.
use crate::attempt::Attempts;
use crate::budget::{Budget, Grant};
use crate::failure::Fault;
use crate::pace::Waiting;
use crate::slot::Phase;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// Makes the grant as large as what will be held, waiting for room where the budget has none.
pub async fn settle(attempts: &Attempts<'_>, grant: &mut Option<Grant>, need: usize) -> Result<(), Fault> {
    let Some(held) = grant else { return Ok(()) };
    if held.bytes() >= need {
        held.shrink(need);
        return Ok(());
    }
    let budget = held.budget().clone();
    let extra = match budget.try_acquire(need - held.bytes()) {
        Some(extra) => extra,
        None => {
            // What was reserved on a guess is of more use to those whose body fits.
            held.shrink(0);
            wait(attempts, &budget, need).await?
        }
    };
    held.join(extra);
    Ok(())
}

/// Makes the grant as large as memory that grows while it is in use, so that nothing can be given back while this waits. No two
/// such wait for each other for ever: the first unfinished request of each queue gets what it needs when nothing else can be taken.
pub async fn extend(attempts: &Attempts<'_>, grant: &mut Option<Grant>, need: usize) -> Result<(), Fault> {
    let more = need - grant.as_ref().map_or(0, Grant::bytes).min(need);
    if more == 0 {
        return Ok(());
    }
    let budget = &attempts.client.budget;
    let extra = match budget.try_acquire(more) {
        Some(extra) => extra,
        None => wait(attempts, budget, more).await?,
    };
    match grant {
        Some(held) => held.join(extra),
        None => *grant = Some(extra),
    }
    Ok(())
}

async fn wait(attempts: &Attempts<'_>, budget: &Arc<Budget>, bytes: usize) -> Result<Grant, Fault> {
    let _waiting = Waiting::new(&attempts.client.waiting_for_budget);
    let slot = attempts.slot;
    slot.enter(Phase::Paused, None);
    poll_fn(|cx| {
        slot.check(cx)?;
        let grant = budget.acquire_or_wake(bytes, cx.waker(), || slot.is_due());
        grant.map_or(Poll::Pending, |grant| Poll::Ready(Ok(grant)))
    })
    .await
}
