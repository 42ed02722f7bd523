//! Buckets themselves.
use super::Call;
use crate::config::BucketConfig;
use crate::error::{Answer, S3Error};
use crate::incoming::Incoming;
use crate::receive::receive_document;
use crate::response::Response;
use crate::xml::{self, Writer};

pub fn list(call: &Call<'_>) -> Answer<Response> {
    let mut out = Writer::new(1024);
    out.root("ListAllMyBucketsResult");
    out.open("Owner");
    out.text("ID", "local-s3");
    out.close("Owner");
    out.open("Buckets");
    for bucket in call.server.store.all() {
        out.open("Bucket");
        out.text("Name", &bucket.name);
        out.text("CreationDate", &bucket.created.iso());
        out.text("BucketRegion", &bucket.region);
        out.close("Bucket");
    }
    out.close("Buckets");
    out.close("ListAllMyBucketsResult");
    Ok(Response::xml(out.finish()))
}

fn is_valid_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-'])
        && !name.ends_with(['.', '-'])
        && !name.contains("..")
}

pub async fn create(call: &Call<'_>, incoming: &mut Incoming<'_>) -> Answer<Response> {
    let name = &call.target.bucket;
    let document =
        if incoming.is_done() { Default::default() } else { receive_document(incoming, &call.expected()).await? };
    if !is_valid_name(name) {
        let error = S3Error::new(400, "InvalidBucketName", "The specified bucket is not valid.");
        return Err(error.with("BucketName", name).into());
    }
    let region = match document.is_empty() {
        true => None,
        false => xml::parse(&document, "CreateBucketConfiguration")?.value("LocationConstraint").map(str::to_owned),
    };
    if call.server.store.find(name).is_some() {
        let message = "Your previous request to create the named bucket succeeded and you already own it.";
        return Err(S3Error::new(409, "BucketAlreadyOwnedByYou", message).with("BucketName", name).into());
    }
    let config = BucketConfig { name: name.clone(), region, ..BucketConfig::default() };
    call.server.store.create(&config).map_err(S3Error::invalid_request)?;
    let mut response = Response::new(200);
    response.header("Location", format!("/{name}"));
    Ok(response)
}

pub fn delete(call: &Call<'_>) -> Answer<Response> {
    call.server.store.remove(&call.target.bucket)?;
    Ok(Response::new(204))
}

pub fn head(call: &Call<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    let mut response = Response::new(200);
    response.header("x-amz-bucket-region", &bucket.region);
    response.header("Content-Type", "application/xml");
    Ok(response)
}

pub fn location(call: &Call<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    let mut out = Writer::new(256);
    out.root("LocationConstraint");
    // The first region has no name here.
    if bucket.region != "us-east-1" {
        out.escaped(bucket.region.as_bytes());
    }
    out.close("LocationConstraint");
    Ok(Response::xml(out.finish()))
}
