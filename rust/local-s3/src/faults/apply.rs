//! What each action makes of a request.
use super::refusal::{refusal, wrong_region};
use super::{Action, Chunks, Corruption, Effects, Ending, ListingFault, Mutation, Outage, Refusal};
use crate::date::Timestamp;
use std::time::Duration;

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

impl Action {
    /// Adds itself to the effects; the name is for the log.
    pub fn apply(&self, effects: &mut Effects) -> &'static str {
        match self {
            Self::Status { status, code, message, retry_after_s, retry_after_date, empty, body_bytes, close } => {
                let mut error = refusal(*status, code.as_ref(), message.as_ref());
                error.close = *close;
                if let Some(delay_s) = retry_after_s {
                    let moment = Timestamp::now().shifted(delay_s.ceil() as i64);
                    let value = if *retry_after_date { moment.http() } else { delay_s.to_string() };
                    error.headers.push(("Retry-After", value));
                }
                effects.refusal = Some(Refusal { error, empty: *empty, body_bytes: *body_bytes, early_at: None });
                "status"
            }
            Self::Early { status, code, at } => {
                let mut error = refusal(*status, code.as_ref(), None);
                error.close = true;
                effects.refusal = Some(Refusal { error, empty: false, body_bytes: 0, early_at: Some(*at) });
                "early"
            }
            Self::Reset { at } => {
                match at {
                    Some(at) => effects.cut = Some((*at, Ending::Reset)),
                    None => effects.ending = Some(Ending::Reset),
                }
                "reset"
            }
            Self::Close => {
                effects.ending = Some(Ending::Close);
                "close"
            }
            Self::CutHead { at, ending, duration_s } => {
                effects.cut_head = Some((*at, *ending));
                effects.stall = duration_s.map(seconds);
                "cut_head"
            }
            Self::Truncate { at } => {
                effects.cut = Some((*at, Ending::Close));
                "truncate"
            }
            Self::Stall { at, duration_s } => {
                match at {
                    Some(at) => effects.cut = Some((*at, Ending::Stall)),
                    None => effects.ending = Some(Ending::Stall),
                }
                effects.stall = duration_s.map(seconds);
                "stall"
            }
            Self::Delay { delay_s } => {
                effects.delay += seconds(*delay_s);
                "delay"
            }
            Self::Slow { bytes_per_s } => {
                effects.bytes_per_s = Some(*bytes_per_s);
                "slow"
            }
            Self::Replace { size_bytes, before } => {
                let mutation = Some(Mutation::Replace { size_bytes: *size_bytes });
                if *before {
                    effects.before = mutation
                } else {
                    effects.after = mutation
                }
                "replace"
            }
            Self::Delete { before } => {
                if *before {
                    effects.before = Some(Mutation::Delete)
                } else {
                    effects.after = Some(Mutation::Delete)
                }
                "delete"
            }
            Self::Corrupt { at, xor, of } => {
                effects.corrupt.push(Corruption { at: *at, xor: *xor, of: *of });
                "corrupt"
            }
            Self::Lost { ending } => {
                effects.lost = Some(*ending);
                "lost"
            }
            Self::LostStatus { status, code } => {
                effects.lost_refusal = Some(refusal(*status, code.as_ref(), None));
                "lost_status"
            }
            Self::SplitHead => {
                effects.split_head = true;
                "split_head"
            }
            Self::Interim { status } => {
                effects.interim = Some(*status);
                "interim"
            }
            Self::Headers { headers } => {
                effects.headers.extend(headers.clone());
                "headers"
            }
            Self::Chunked { chunk_bytes, extensions, trailers } => {
                let most_bytes = chunk_bytes.unwrap_or(u64::MAX).max(1);
                effects.chunks = Some(Chunks { most_bytes, extensions: *extensions, trailers: *trailers });
                "chunked"
            }
            Self::Compressed => {
                effects.compressed = true;
                "compressed"
            }
            Self::WrongLength { delta } => {
                effects.length_delta = *delta;
                "wrong_length"
            }
            Self::Skew { seconds } => {
                effects.skew_s += seconds;
                "skew"
            }
            Self::Region { status, region, location } => {
                let mut error = wrong_region(*status, region);
                error.headers.extend(location.clone().map(|location| ("Location", location)));
                effects.refusal = Some(Refusal { error, empty: false, body_bytes: 0, early_at: None });
                "region"
            }
            Self::ErrorIn200 { code, after_s } => {
                effects.error_in_200 = Some(refusal(500, code.as_ref(), None));
                effects.white_space = seconds(*after_s);
                "error_in_200"
            }
            Self::SlowResult { delay_s } => {
                effects.white_space = seconds(*delay_s);
                "slow_result"
            }
            Self::IgnoreConditions => {
                effects.ignore_conditions = true;
                "ignore_conditions"
            }
            Self::IgnoreRange => {
                effects.ignore_range = true;
                "ignore_range"
            }
            Self::ShiftRange { delta } => {
                effects.shift_range = *delta;
                "shift_range"
            }
            Self::FailedDeletes { keys, code } => {
                effects.failed_deletes.push((keys.clone(), refusal(500, code.as_ref(), None)));
                "failed_deletes"
            }
            Self::RefuseChecksums => {
                effects.refuse_checksums = true;
                "refuse_checksums"
            }
            Self::UnorderedListing => {
                effects.listing = Some(ListingFault::Unordered);
                "unordered_listing"
            }
            Self::DuplicateListing => {
                effects.listing = Some(ListingFault::Duplicate);
                "duplicate_listing"
            }
            Self::EmptyListing => {
                effects.listing = Some(ListingFault::Empty);
                "empty_listing"
            }
            Self::EndlessListing => {
                effects.listing = Some(ListingFault::Endless);
                "endless_listing"
            }
            Self::StuckListing => {
                effects.listing = Some(ListingFault::Stuck);
                "stuck_listing"
            }
            Self::TokenlessListing => {
                effects.listing = Some(ListingFault::Tokenless);
                "tokenless_listing"
            }
            Self::Raw { data } => {
                effects.raw = Some(data.clone());
                "raw"
            }
            Self::EndlessHead => {
                effects.endless_head = true;
                "endless_head"
            }
            Self::CloseAfter { announced } => {
                effects.close_after = true;
                effects.close_announced = *announced;
                "close_after"
            }
            Self::Outage { duration_s, silent } => {
                effects.outage = Some(Outage { duration: seconds(*duration_s), silent: *silent });
                effects.ending = Some(if *silent { Ending::Stall } else { Ending::Reset });
                "outage"
            }
        }
    }
}
