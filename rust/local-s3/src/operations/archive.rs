//! Objects that cannot be read until they are restored.
use super::Call;
use super::versions::{find, version_id};
use crate::date::Timestamp;
use crate::error::{Answer, S3Error};
use crate::incoming::Incoming;
use crate::receive::receive_document;
use crate::response::Response;
use crate::store::object::{Availability, Object, Restore};
use crate::xml::{self, Writer};

const DAY_S: i64 = 86_400;

/// Refuses to read what is archived.
pub fn check_readable(object: &Object, now: Timestamp, message: &'static str) -> Result<(), S3Error> {
    if matches!(object.availability(now), Availability::Here | Availability::Restored { .. }) {
        return Ok(());
    }
    let class = object.attributes.storage_class.as_deref().unwrap_or("STANDARD");
    let error = S3Error::new(403, "InvalidObjectState", message).with("StorageClass", class);
    Err(match &object.attributes.archive_tier {
        Some(tier) => error.with("AccessTier", tier),
        None => error,
    })
}

/// What HEAD and GET tell of an archived object.
pub fn describe(response: &mut Response, object: &Object, now: Timestamp) {
    let availability = object.availability(now);
    match availability {
        Availability::Here => return,
        Availability::Archived => {}
        Availability::Restoring => response.header("x-amz-restore", "ongoing-request=\"true\""),
        Availability::Restored { until } => {
            let value = format!("ongoing-request=\"false\", expiry-date=\"{}\"", until.http());
            response.header("x-amz-restore", value);
        }
    }
    if let Some(tier) = &object.attributes.archive_tier {
        response.header("x-amz-archive-status", tier);
    }
}

/// What a listing tells, if it is asked to.
pub fn list(object: &Object, now: Timestamp, out: &mut Writer) {
    let (is_in_progress, until) = match object.availability(now) {
        Availability::Here | Availability::Archived => return,
        Availability::Restoring => (true, None),
        Availability::Restored { until } => (false, Some(until)),
    };
    out.open("RestoreStatus");
    out.display("IsRestoreInProgress", is_in_progress);
    out.optional("RestoreExpiryDate", until.map(Timestamp::iso).as_deref());
    out.close("RestoreStatus");
}

pub async fn restore(call: &Call<'_>, incoming: &mut Incoming<'_>) -> Answer<Response> {
    let key = &call.target.key;
    let bucket = call.bucket()?;
    let object = find(&bucket, key, version_id(call.query)?)?;
    let document = receive_document(incoming, &call.expected()).await?;
    let days = match document.is_empty() {
        true => None,
        false => xml::parse(&document, "RestoreRequest")?.value("Days").map(str::to_owned),
    };
    let days = days.map(|text| text.parse::<i64>().ok().filter(|days| *days > 0).ok_or_else(S3Error::malformed_xml));
    let now = call.server.now(call.effects);
    let status = match object.availability(now) {
        Availability::Here => {
            let message = "Restore is not allowed for the object's current storage class";
            let class = object.attributes.storage_class.as_deref().unwrap_or("STANDARD");
            return Err(S3Error::new(403, "InvalidObjectState", message).with("StorageClass", class).into());
        }
        Availability::Restoring => {
            let message = "Object restore is already in progress";
            return Err(S3Error::new(409, "RestoreAlreadyInProgress", message).into());
        }
        Availability::Archived => 202,
        Availability::Restored { .. } => 200,
    };
    let ready = if status == 202 { now.shifted(call.config.restore_s) } else { now };
    let days = days.transpose()?.unwrap_or(1);
    // S3 rounds up to the next midnight.
    let end = ((ready.seconds + days * DAY_S) / DAY_S + 1) * DAY_S;
    let restore = Some(Restore { ready, expires: Timestamp { seconds: end, millis: 0 } });
    bucket.replace(key, &object, Object { restore, ..(*object).clone() });
    Ok(Response::new(status))
}
