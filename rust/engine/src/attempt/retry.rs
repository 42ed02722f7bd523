//! What follows a failed attempt: another one, when, or the end.
use super::Attempts;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::pace::{Pace, Permit, Waiting};
use crate::slot::Phase;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const CREDENTIALS_WAIT: Duration = Duration::from_secs(30);
/// A body that brought so much before it broke off got on: what follows counts from the start again, or large objects could not be
/// read over networks that fail now and then. Less may be what buffers on the way held.
const PROGRESS: u64 = 64 << 10;
/// Time for removing an unfinished upload, however little others have: it costs money until then. The caller may end it before.
const CLEANUP: Duration = Duration::from_secs(10);

enum Verdict {
    Again(Duration),
    Final,
    /// It would be tried again, had that not been done often enough.
    Exhausted,
}

impl<'a> Attempts<'a> {
    /// After a body that broke off, with what it had brought. Time goes on: `retry_max_elapsed` bounds all of it.
    pub async fn after_body(&mut self, fault: Fault, bytes: u64) -> Result<(), Box<Failure>> {
        if bytes >= PROGRESS {
            (self.counted, self.stale) = (0, 0);
        }
        self.after(fault).await
    }

    /// After a fault: returns when it is time for another attempt, or the failure when there is none.
    pub async fn after(&mut self, fault: Fault) -> Result<(), Box<Failure>> {
        if fault.retry != Retry::Never && self.slot.is_cancelled() {
            // It would have been tried again, so that it is called off is all there is to say.
            return Err(Box::new(self.failure(Fault::cancelled(), false)));
        }
        if fault.retry == Retry::Hedged {
            self.client.stats.hedges.fetch_add(1, Relaxed);
            (self.fresh, self.hedged) = (true, self.hedged + 1);
            self.sent -= 1; // the same attempt goes on
            return Ok(());
        }
        self.hedged = 0;
        let mut pause = match self.judge(&fault) {
            Verdict::Again(pause) => pause,
            Verdict::Final => return Err(Box::new(self.failure(fault, false))),
            Verdict::Exhausted => return Err(Box::new(self.failure(fault, true))),
        };
        if let Some(wish) = fault.retry_after_s {
            pause = pause.max(Duration::from_secs_f64(wish.min(1e6)));
        }
        if self.started.elapsed() + pause > self.most_elapsed() {
            return Err(Box::new(self.failure(fault, true)));
        }
        let (stats, connections) = (&self.client.stats, self.client.settings.max_connections);
        stats.retry(fault.cause());
        if fault.retry == Retry::Counted {
            pause += self.client.quota.take(stats.requests.load(Relaxed), connections);
        }
        if self.causes.len() < 10 {
            self.causes.push(fault.to_string());
        }
        self.slot.enter(Phase::Paused, None);
        if fault.kind == Kind::Credentials
            && let Err(refusal) = self.renew_credentials().await
        {
            if self.slot.is_cancelled() {
                return Err(Box::new(self.failure(Fault::cancelled(), false)));
            }
            return Err(Box::new(
                self.failure(Fault { message: format!("{}; {refusal}", fault.message), ..fault }, false),
            ));
        }
        let throttled = fault.retry == Retry::Throttle;
        if throttled {
            self.refusal = Some(Box::new(fault));
        }
        if !pause.is_zero() {
            let _aside = throttled.then(|| self.step_aside());
            let sleep = async {
                tokio::time::sleep(pause).await;
                Ok(())
            };
            if let Err(cancelled) = crate::connect::watched(self.slot, sleep).await {
                return Err(Box::new(self.failure(cancelled, false)));
            }
        }
        Ok(())
    }

    /// Counts a fault, and says whether another attempt may follow, after which pause at least.
    fn judge(&mut self, fault: &Fault) -> Verdict {
        let most = self.client.settings.max_attempts;
        match fault.retry {
            Retry::Never | Retry::Hedged => Verdict::Final,
            Retry::Spent => Verdict::Exhausted,
            // The next connection is a new one, so this cannot happen twice in a row.
            Retry::Stale => {
                (self.fresh, self.stale) = (true, self.stale + 1);
                if self.stale > 3 { Verdict::Exhausted } else { Verdict::Again(Duration::ZERO) }
            }
            Retry::Corrected => {
                self.corrected += 1;
                if self.corrected > 3 { Verdict::Final } else { Verdict::Again(Duration::ZERO) }
            }
            Retry::Counted => {
                (self.counted, self.stale) = (self.counted + 1, 0);
                self.fresh = matches!(fault.kind, Kind::FirstByteTimeout | Kind::StallTimeout);
                if self.counted >= most {
                    return Verdict::Exhausted;
                }
                Verdict::Again(self.backoff(self.counted, 0.05, 20.0))
            }
            Retry::Throttle => {
                (self.throttled, self.stale) = (self.throttled + 1, 0);
                self.client.stats.throttles.fetch_add(1, Relaxed);
                if let Some(turn) = &self.turn {
                    turn.pace.throttled(turn.sent, turn.crowd, self.lane.random());
                }
                if most <= 1 {
                    return Verdict::Exhausted;
                }
                Verdict::Again(self.backoff(self.throttled, 0.2, 2.0))
            }
        }
    }

    /// Full jitter: anything up to a bound that doubles.
    fn backoff(&self, n: u32, base: f64, cap: f64) -> Duration {
        Duration::from_secs_f64(self.lane.random() * (base * 2f64.powi(n.min(16) as i32)).min(cap))
    }

    fn most_elapsed(&self) -> Duration {
        let saves = matches!(
            self.operation,
            "PutObject"
                | "CreateMultipartUpload"
                | "UploadPart"
                | "UploadPartCopy"
                | "CompleteMultipartUpload"
                | "CopyObject"
        );
        let settings = &self.client.settings;
        match self.operation {
            "AbortMultipartUpload" => settings.save_max_elapsed.max(CLEANUP),
            _ if saves => settings.save_max_elapsed,
            _ => settings.retry_max_elapsed,
        }
    }

    /// The service asked for less: waits until this request is among those that may ask.
    pub(super) async fn wait_for_turn(&self, pace: &'a Pace) -> Result<Permit<'a>, Fault> {
        let _aside = self.step_aside();
        let left = self.most_elapsed().saturating_sub(self.started.elapsed());
        self.slot.enter(Phase::Paused, None);
        let turn = crate::connect::watched(self.slot, async { Ok(pace.enter(left).await) }).await?;
        turn.ok_or_else(|| match &self.refusal {
            Some(refusal) => Fault { retry: Retry::Never, ..(**refusal).clone() },
            None => {
                Fault::new(Kind::Throttled, Retry::Never, "the service asks to slow down, and others wait before this")
            }
        })
    }

    /// While it waits it takes no connection from others.
    fn step_aside(&self) -> (Waiting<'_>, Waiting<'_>) {
        (Waiting::new(&self.client.aside), Waiting::new(&self.lane.aside))
    }

    /// Waits for other credentials than those that were refused.
    async fn renew_credentials(&self) -> Result<(), String> {
        if crate::session::forget(self) {
            return Ok(());
        }
        let version = self.credentials_version.get();
        self.client.want_credentials(version);
        let began = Instant::now();
        loop {
            match self.client.newer_credentials(version) {
                Some(answer) => return answer,
                None if began.elapsed() > CREDENTIALS_WAIT => {
                    return Err("no new credentials came within 30 s".to_owned());
                }
                None if self.slot.is_cancelled() => return Err("cancelled".to_owned()),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub fn failure(&self, fault: Fault, retries_exhausted: bool) -> Failure {
        Failure {
            status: fault.status,
            code: fault.code,
            request_id: fault.request_id,
            host_id: fault.host_id,
            attempts: self.sent,
            elapsed_s: self.started.elapsed().as_secs_f64(),
            causes: self.causes.clone(),
            retries_exhausted,
            region: fault.region,
            ..Failure::new(fault.kind, self.operation, &self.target.route.bucket, &self.target.key, fault.message)
        }
    }
}
