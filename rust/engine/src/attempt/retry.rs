//! What follows a failed attempt: another one, when, or the end.
use super::Attempts;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::lane::Lane;
use crate::slot::Phase;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const CREDENTIALS_WAIT: Duration = Duration::from_secs(30);
/// A body that brought so much before it broke off got on: what follows counts from the start again, or large objects could not be
/// read over networks that fail now and then. Less may be what buffers on the way held.
const PROGRESS: u64 = 64 << 10;

impl Attempts<'_> {
    /// After a body that broke off, with what it had brought. Time goes on: `retry_max_elapsed` bounds all of it.
    pub async fn after_body(&mut self, fault: Fault, bytes: u64) -> Result<(), Box<Failure>> {
        if bytes >= PROGRESS {
            (self.counted, self.stale) = (0, 0);
        }
        self.after(fault).await
    }

    /// After a fault: returns when it is time for another attempt, or the failure when there is none.
    pub async fn after(&mut self, fault: Fault) -> Result<(), Box<Failure>> {
        let settings = &self.client.settings;
        let elapsed = self.started.elapsed();
        let mut exhausted = false;
        let mut pause = Duration::ZERO;
        let backoff = |lane: &Lane, n: u32, base: f64, cap: f64| {
            Duration::from_secs_f64(lane.random() * (base * 2f64.powi(n.min(16) as i32)).min(cap))
        };
        if fault.retry != Retry::Never && self.slot.is_cancelled() {
            // It would have been tried again, so that it is called off is all there is to say.
            return Err(Box::new(self.failure(Fault::cancelled(), false)));
        }
        let again = match fault.retry {
            Retry::Never => false,
            Retry::Stale => {
                self.fresh = true;
                self.stale += 1;
                self.stale <= 3 || {
                    exhausted = true;
                    false
                }
            }
            Retry::Corrected => {
                self.corrected += 1;
                self.corrected <= 3
            }
            Retry::Counted => {
                self.counted += 1;
                self.fresh = fault.kind == Kind::FirstByteTimeout || fault.kind == Kind::StallTimeout;
                pause = backoff(self.lane, self.counted, 0.05, 20.0);
                exhausted = self.counted >= settings.max_attempts;
                !exhausted
            }
            Retry::Throttle => {
                self.throttled += 1;
                self.client.stats.throttles.fetch_add(1, Relaxed);
                pause = backoff(self.lane, self.throttled, 0.2, 10.0);
                exhausted = settings.max_attempts <= 1;
                !exhausted
            }
        };
        if let Some(wish) = fault.retry_after_s.filter(|_| again) {
            pause = pause.max(Duration::from_secs_f64(wish.min(300.0)));
        }
        if again && elapsed + pause > settings.retry_max_elapsed {
            exhausted = true;
        }
        if !again || exhausted {
            return Err(Box::new(self.failure(fault, exhausted)));
        }
        self.client.stats.retry(fault.cause());
        if self.causes.len() < 10 {
            self.causes.push(fault.to_string());
        }
        let wants_credentials = fault.kind == Kind::Credentials;
        self.slot.enter(Phase::Paused, None);
        if wants_credentials && let Err(refusal) = self.renew_credentials().await {
            if self.slot.is_cancelled() {
                return Err(Box::new(self.failure(Fault::cancelled(), false)));
            }
            return Err(Box::new(
                self.failure(Fault { message: format!("{}; {refusal}", fault.message), ..fault }, false),
            ));
        }
        if !pause.is_zero() {
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

    /// Waits for other credentials than those that were refused.
    async fn renew_credentials(&self) -> Result<(), String> {
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
