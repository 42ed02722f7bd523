//! The small answers: errors, and the results of uploads, copies, deletions and sessions.

use super::list::unquoted;
use super::scan::Scanner;
use super::{XmlError, excerpt};
use crate::date::parse_iso8601;
use crate::sign::Credentials;

/// What S3 says of a request that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// Such as `NoSuchKey`; never empty.
    pub code: String,
    pub message: String,
    pub request_id: Option<String>,
    /// Amazon's second id of a request, which its support asks for.
    pub host_id: Option<String>,
    /// Where the bucket is, of an AuthorizationHeaderMalformed or PermanentRedirect.
    pub region: Option<String>,
    /// The host to use instead, of a PermanentRedirect.
    pub endpoint: Option<String>,
    /// Size of the object in bytes, of an InvalidRange.
    pub actual_object_size: Option<u64>,
    pub resource: Option<String>,
    /// The service's clock, of a RequestTimeTooSkewed, as it was written.
    pub server_time: Option<String>,
    /// What it is about: the header, of a NotImplemented; the storage class or tier, of an InvalidObjectState.
    pub about: Option<String>,
}

/// Reads an error document: `<Error>`, also inside `<ErrorResponse>` as some services have it.
///
/// None when it is none: HTML, nothing, garbage, or an error without a code. Of a document that
/// breaks off behind its code, what came is returned.
pub fn parse_error(xml: &[u8]) -> Option<ServiceError> {
    let mut scanner = Scanner::new(xml).ok()?;
    let mut error = ServiceError::default();
    let _breaks_off = match scanner.root().ok()? {
        "Error" => read_error(&mut scanner, &mut error),
        "ErrorResponse" => read_error_response(&mut scanner, &mut error),
        _ => return None,
    };
    (!error.code.is_empty()).then_some(error)
}

fn read_error_response(scanner: &mut Scanner<'_>, error: &mut ServiceError) -> Result<(), XmlError> {
    while let Some(name) = scanner.child()? {
        match name {
            "Error" => read_error(scanner, error)?,
            "RequestId" | "RequestID" => error.request_id = service_text(scanner)?,
            _ => scanner.skip()?,
        }
    }
    Ok(())
}

fn read_error(scanner: &mut Scanner<'_>, error: &mut ServiceError) -> Result<(), XmlError> {
    while let Some(name) = scanner.child()? {
        match name {
            "Code" => error.code = service_text(scanner)?.unwrap_or_default(),
            "Message" => error.message = service_text(scanner)?.unwrap_or_default(),
            "RequestId" => error.request_id = service_text(scanner)?,
            "HostId" => error.host_id = service_text(scanner)?,
            "Region" => error.region = service_text(scanner)?,
            "Endpoint" => error.endpoint = service_text(scanner)?,
            "ActualObjectSize" => error.actual_object_size = scanner.text()?.trim().parse().ok(),
            "Resource" => error.resource = service_text(scanner)?,
            "ServerTime" => error.server_time = service_text(scanner)?,
            "Header" | "StorageClass" | "AccessTier" => {
                error.about = service_text(scanner)?.filter(|text| *text != "null").or(error.about.take());
            }
            _ => scanner.skip()?,
        }
    }
    Ok(())
}

/// The text of the innermost element without white space around it; None if nothing is left.
/// For what services name; keys are taken as they are.
pub(super) fn service_text(scanner: &mut Scanner<'_>) -> Result<Option<String>, XmlError> {
    let text = scanner.text()?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Enters the document if its element has one of these names.
pub(super) fn open_root(scanner: &mut Scanner<'_>, accepted: &[&'static str]) -> Result<(), XmlError> {
    let found = scanner.root()?;
    if accepted.contains(&found) {
        return Ok(());
    }
    let mut error = ServiceError::default();
    match found {
        "Error" => read_error(scanner, &mut error)?,
        "ErrorResponse" => read_error_response(scanner, &mut error)?,
        _ => {}
    }
    if !error.code.is_empty() {
        return Err(XmlError::Service(Box::new(error)));
    }
    Err(XmlError::UnexpectedRoot { expected: accepted.first().copied().unwrap_or_default(), found: excerpt(found) })
}

/// The id of the upload that an InitiateMultipartUploadResult tells.
///
/// # Errors
/// [`XmlError::Service`] if the document is an error; others if it is malformed or has no id.
pub fn parse_initiate(xml: &[u8]) -> Result<String, XmlError> {
    let mut scanner = Scanner::new(xml)?;
    open_root(&mut scanner, &["InitiateMultipartUploadResult"])?;
    let mut upload_id = None;
    while let Some(name) = scanner.child()? {
        match name {
            "UploadId" => upload_id = service_text(&mut scanner)?,
            _ => scanner.skip()?,
        }
    }
    upload_id.ok_or(XmlError::Missing { element: "UploadId" })
}

/// How an operation ended that answers 200 before it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompleteResult {
    Done {
        /// Without quotes; empty if the service told none.
        etag: String,
        /// Base64, as [`crate::checksum::encode`] writes it; so the others.
        checksum_crc64nvme: Option<String>,
        checksum_crc32c: Option<String>,
        checksum_crc32: Option<String>,
        /// `FULL_OBJECT` or `COMPOSITE`.
        checksum_type: Option<String>,
        /// Epoch seconds; copies tell it.
        last_modified_s: Option<i64>,
    },
    /// 200 and yet an error.
    Failed(ServiceError),
}

/// Reads the answer to CompleteMultipartUpload.
///
/// # Errors
/// If the document is neither a result nor an error: whether the upload was completed is then unknown.
pub fn parse_complete(xml: &[u8]) -> Result<CompleteResult, XmlError> {
    read_result(xml, &["CompleteMultipartUploadResult"])
}

/// Reads the answer to CopyObject or UploadPartCopy.
///
/// # Errors
/// If the document is neither a result nor an error: whether the copy was made is then unknown.
pub fn parse_copy(xml: &[u8]) -> Result<CompleteResult, XmlError> {
    read_result(xml, &["CopyObjectResult", "CopyPartResult"])
}

fn read_result(xml: &[u8], accepted: &[&'static str]) -> Result<CompleteResult, XmlError> {
    let mut scanner = Scanner::new(xml)?;
    match open_root(&mut scanner, accepted) {
        Ok(()) => {}
        Err(XmlError::Service(error)) => return Ok(CompleteResult::Failed(*error)),
        Err(error) => return Err(error),
    }
    let mut etag = String::new();
    let (mut checksum_crc64nvme, mut checksum_crc32c, mut checksum_crc32) = (None, None, None);
    let (mut checksum_type, mut last_modified_s) = (None, None);
    while let Some(name) = scanner.child()? {
        match name {
            "ETag" => etag = unquoted(scanner.text()?).to_owned(),
            "ChecksumCRC64NVME" => checksum_crc64nvme = service_text(&mut scanner)?,
            "ChecksumCRC32C" => checksum_crc32c = service_text(&mut scanner)?,
            "ChecksumCRC32" => checksum_crc32 = service_text(&mut scanner)?,
            "ChecksumType" => checksum_type = service_text(&mut scanner)?,
            "LastModified" => last_modified_s = parse_iso8601(scanner.text()?),
            _ => scanner.skip()?,
        }
    }
    Ok(CompleteResult::Done {
        etag,
        checksum_crc64nvme,
        checksum_crc32c,
        checksum_crc32,
        checksum_type,
        last_modified_s,
    })
}

/// What DeleteObjects did not delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// (key, code, message) of each key that is still there.
    pub errors: Vec<(String, String, String)>,
}

/// Reads the answer to DeleteObjects.
///
/// # Errors
/// [`XmlError::Service`] if the request failed as a whole; others if the document is malformed.
pub fn parse_delete(xml: &[u8]) -> Result<DeleteOutcome, XmlError> {
    let mut scanner = Scanner::new(xml)?;
    open_root(&mut scanner, &["DeleteResult"])?;
    let mut outcome = DeleteOutcome::default();
    while let Some(name) = scanner.child()? {
        if name != "Error" {
            scanner.skip()?;
            continue;
        }
        let (mut key, mut code, mut message) = (String::new(), String::new(), String::new());
        while let Some(name) = scanner.child()? {
            match name {
                "Key" => key = scanner.text()?.to_owned(),
                "Code" => code = service_text(&mut scanner)?.unwrap_or_default(),
                "Message" => message = service_text(&mut scanner)?.unwrap_or_default(),
                _ => scanner.skip()?,
            }
        }
        outcome.errors.push((key, code, message));
    }
    Ok(outcome)
}

/// A session with a directory bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub credentials: Credentials,
    /// Epoch seconds.
    pub expires_s: i64,
}

/// Reads a CreateSessionResult.
///
/// # Errors
/// [`XmlError::Service`] if the document is an error; others if it is malformed or incomplete.
pub fn parse_session(xml: &[u8]) -> Result<Session, XmlError> {
    let mut scanner = Scanner::new(xml)?;
    open_root(&mut scanner, &["CreateSessionResult"])?;
    let (mut access_key, mut secret_key, mut session_token, mut expires_s) = (None, None, None, None);
    while let Some(name) = scanner.child()? {
        if name != "Credentials" {
            scanner.skip()?;
            continue;
        }
        while let Some(name) = scanner.child()? {
            match name {
                "AccessKeyId" => access_key = service_text(&mut scanner)?,
                "SecretAccessKey" => secret_key = service_text(&mut scanner)?,
                "SessionToken" => session_token = service_text(&mut scanner)?,
                "Expiration" => expires_s = parse_iso8601(scanner.text()?),
                _ => scanner.skip()?,
            }
        }
    }
    Ok(Session {
        credentials: Credentials {
            access_key: access_key.ok_or(XmlError::Missing { element: "AccessKeyId" })?,
            secret_key: secret_key.ok_or(XmlError::Missing { element: "SecretAccessKey" })?,
            session_token: Some(session_token.ok_or(XmlError::Missing { element: "SessionToken" })?),
            of_session: true,
        },
        expires_s: expires_s.ok_or(XmlError::Missing { element: "Expiration" })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(etag: &str) -> CompleteResult {
        CompleteResult::Done {
            etag: etag.into(),
            checksum_crc64nvme: None,
            checksum_crc32c: None,
            checksum_crc32: None,
            checksum_type: None,
            last_modified_s: None,
        }
    }

    #[test]
    fn an_error_with_all_that_is_used() {
        let error = parse_error(
            br#"<?xml version="1.0" encoding="UTF-8"?>
            <Error><Code>InvalidRange</Code><Message>not &lt;satisfiable&gt;</Message><Region> eu-west-1
            </Region><Endpoint>b.s3-eu-west-1.amazonaws.com</Endpoint><ActualObjectSize>0</ActualObjectSize>
            <Unknown><Code>no</Code></Unknown><Resource>/k</Resource><ServerTime>2013-05-24T00:00:00Z</ServerTime>
            <RequestId>4442587FB7D0A2F9</RequestId><HostId>h+/=</HostId></Error>"#,
        );
        let expected = ServiceError {
            code: "InvalidRange".into(),
            message: "not <satisfiable>".into(),
            request_id: Some("4442587FB7D0A2F9".into()),
            host_id: Some("h+/=".into()),
            region: Some("eu-west-1".into()),
            endpoint: Some("b.s3-eu-west-1.amazonaws.com".into()),
            actual_object_size: Some(0),
            resource: Some("/k".into()),
            server_time: Some("2013-05-24T00:00:00Z".into()),
            about: None,
        };
        assert_eq!(error, Some(expected));
        let archived = b"<Error><Code>InvalidObjectState</Code><StorageClass>INTELLIGENT_TIERING</StorageClass>\
            <AccessTier>ARCHIVE_ACCESS</AccessTier></Error>";
        assert_eq!(parse_error(archived).unwrap().about.as_deref(), Some("ARCHIVE_ACCESS"));
    }

    #[test]
    fn errors_of_other_make() {
        let wrapped =
            b"<ErrorResponse xmlns='u'><Error><Code>Throttling</Code></Error><RequestId>r</RequestId></ErrorResponse>";
        let error = parse_error(wrapped).unwrap();
        assert_eq!((error.code.as_str(), error.request_id.as_deref()), ("Throttling", Some("r")));
        let cut = parse_error(b"<Error><Code>SlowDown</Code><Message>Please red").unwrap();
        assert_eq!((cut.code.as_str(), cut.message.as_str()), ("SlowDown", ""));
    }

    #[test]
    fn what_is_no_error_document_is_none() {
        for body in [
            &b""[..],
            b"   ",
            b"<!DOCTYPE html><html><body>503</body></html>",
            b"<html><Error><Code>x</Code></Error></html>",
            b"Service Unavailable",
            b"{\"code\": 1}",
            b"<Error></Error>",
            b"<Error><Message>m</Message></Error>",
            b"<Error><Code>",
            b"\xff\xfe<\0E\0",
        ] {
            assert_eq!(parse_error(body), None, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn upload_ids() {
        let xml = b"<InitiateMultipartUploadResult xmlns='u'><Bucket>b</Bucket><Key>k</Key><UploadId>VX&amp;z</UploadId></InitiateMultipartUploadResult>";
        assert_eq!(parse_initiate(xml).as_deref(), Ok("VX&z"));
        let missing = parse_initiate(b"<InitiateMultipartUploadResult/>");
        assert_eq!(missing, Err(XmlError::Missing { element: "UploadId" }));
        let html = parse_initiate(b"<html></html>").unwrap_err().to_string();
        assert!(html.contains("InitiateMultipartUploadResult") && html.contains("<html>"), "{html}");
    }

    #[test]
    fn a_completion_with_white_space_before_it() {
        let xml = b" \n \n<?xml version=\"1.0\"?>\n\n  <CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Location>http://h/b/k</Location><ETag>&quot;3858f62230ac3c915f300c664312c11f-9&quot;</ETag>\
            <ChecksumCRC64NVME>rosUhgp5mIg=</ChecksumCRC64NVME><ChecksumType>FULL_OBJECT</ChecksumType>\
            </CompleteMultipartUploadResult>";
        let CompleteResult::Done { etag, checksum_crc64nvme, checksum_type, .. } = parse_complete(xml).unwrap() else {
            panic!("failed")
        };
        assert_eq!(etag, "3858f62230ac3c915f300c664312c11f-9");
        assert_eq!(checksum_crc64nvme.as_deref(), Some("rosUhgp5mIg="));
        assert_eq!(checksum_type.as_deref(), Some("FULL_OBJECT"));
    }

    #[test]
    fn an_error_in_a_200_is_a_failure() {
        let xml = b"\n\n<?xml version=\"1.0\"?> <Error><Code>InternalError</Code><Message>m</Message></Error>";
        for parse in [parse_complete, parse_copy] {
            match parse(xml) {
                Ok(CompleteResult::Failed(error)) => assert_eq!(error.code, "InternalError"),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(parse_delete(xml), Err(XmlError::Service(_))));
    }

    #[test]
    fn an_answer_that_breaks_off_is_neither_done_nor_failed() {
        for xml in [
            &b""[..],
            b"   \n",
            b"<?xml version=\"1.0\"?>",
            b"<CompleteMultipartUploadResult><ETag>\"x\"</ETag>",
            b"<Error><Code>InternalErr",
            b"<html/>",
        ] {
            assert!(parse_complete(xml).is_err(), "{}", xml.escape_ascii());
        }
    }

    #[test]
    fn copies_of_objects_and_parts() {
        let xml = b"<CopyObjectResult><LastModified>2009-10-12T17:50:30.000Z</LastModified><ETag>\"9b2c\"</ETag></CopyObjectResult>";
        let CompleteResult::Done { etag, last_modified_s, .. } = parse_copy(xml).unwrap() else { panic!("failed") };
        assert_eq!((etag.as_str(), last_modified_s), ("9b2c", Some(1_255_369_830)));
        assert_eq!(parse_copy(b"<CopyPartResult><ETag>9b2c</ETag></CopyPartResult>"), Ok(done("9b2c")));
        assert_eq!(parse_copy(b"<CopyPartResult/>"), Ok(done("")));
    }

    #[test]
    fn keys_that_were_not_deleted() {
        let xml = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key> b&#x1;</Key><Code>AccessDenied</Code>\
            <Message>Access Denied</Message></Error></DeleteResult>";
        let expected = vec![(" b\u{1}".to_owned(), "AccessDenied".to_owned(), "Access Denied".to_owned())];
        assert_eq!(parse_delete(xml).unwrap().errors, expected);
        assert_eq!(parse_delete(b"<DeleteResult/>"), Ok(DeleteOutcome::default()));
    }

    #[test]
    fn sessions() {
        let xml = b"<CreateSessionResult><Credentials><SessionToken>tok</SessionToken><SecretAccessKey>sec</SecretAccessKey>\
            <AccessKeyId>acc</AccessKeyId><Expiration>2023-06-20T00:00:00Z</Expiration></Credentials></CreateSessionResult>";
        let session = parse_session(xml).unwrap();
        assert_eq!(session.credentials.session_token.as_deref(), Some("tok"));
        assert_eq!(session.expires_s, 1_687_219_200);
        let shown = format!("{session:?}");
        assert!(!shown.contains("tok\"") && !shown.contains("sec\""), "{shown}");
        assert_eq!(parse_session(b"<CreateSessionResult/>"), Err(XmlError::Missing { element: "AccessKeyId" }));
    }
}
