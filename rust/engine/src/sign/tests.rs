//! The first four are the examples that Amazon publishes for S3.

use super::*;

/// 2013-05-24T00:00:00Z, the moment of all of Amazon's examples.
const EXAMPLE_EPOCH_S: u64 = 1_369_353_600;

fn example_credentials() -> Credentials {
    Credentials {
        access_key: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        session_token: None,
        of_session: false,
    }
}

fn example(method: &str, path: &str, query: &str, headers: &[(&str, &str)], payload: Payload<'_>) -> (String, String) {
    let credentials = example_credentials();
    let host = "examplebucket.s3.amazonaws.com";
    let value =
        authorization(&credentials, "us-east-1", "s3", EXAMPLE_EPOCH_S, method, host, path, query, headers, payload);
    let rest = value
        .strip_prefix(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=",
        )
        .unwrap();
    let (names, signature) = rest.split_once(", Signature=").unwrap();
    (names.to_owned(), signature.to_owned())
}

#[test]
fn amazons_get_object() {
    let (names, signature) = example("GET", "/test.txt", "", &[("range", "bytes=0-9")], Payload::Empty);
    assert_eq!(names, "host;range;x-amz-content-sha256;x-amz-date");
    assert_eq!(signature, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

#[test]
fn amazons_put_object() {
    let hash = sha256_hex(b"Welcome to Amazon S3.");
    let mut path = "/".to_owned();
    encode_key("test$file.text", &mut path);
    let headers = [("x-amz-storage-class", "REDUCED_REDUNDANCY"), ("date", "Fri, 24 May 2013 00:00:00 GMT")];
    let (names, signature) = example("PUT", &path, "", &headers, Payload::Sha256Hex(&hash));
    assert_eq!(names, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class");
    assert_eq!(signature, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

#[test]
fn amazons_get_bucket_lifecycle() {
    let query = canonical_query(&mut [("lifecycle", "")]);
    let (_, signature) = example("GET", "/", &query, &[], Payload::Empty);
    assert_eq!(signature, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

#[test]
fn amazons_list_objects() {
    let query = canonical_query(&mut [("prefix", "J"), ("max-keys", "2")]);
    assert_eq!(query, "max-keys=2&prefix=J");
    let (_, signature) = example("GET", "", &query, &[], Payload::Empty);
    assert_eq!(signature, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

fn lines(signer: &mut Signer, credentials: &Credentials, service: &str, epoch_s: u64) -> String {
    let mut out = b"GET / HTTP/1.1\r\n".to_vec();
    signer.sign(credentials, "r", service, epoch_s, "GET", "h", "/k", "", &[], Payload::Unsigned, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn lines_are_appended_and_complete() {
    let mut credentials = example_credentials();
    let mut signer = Signer::new();
    let text = lines(&mut signer, &credentials, "s3", EXAMPLE_EPOCH_S);
    assert!(text.starts_with(
        "GET / HTTP/1.1\r\nx-amz-date: 20130524T000000Z\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\nauthorization: AWS4"
    ));
    assert!(text.ends_with("\r\n") && !text.contains("token"));

    credentials.session_token = Some("tok/en==".into());
    let text = lines(&mut signer, &credentials, "s3", EXAMPLE_EPOCH_S);
    assert!(text.contains("\r\nx-amz-security-token: tok/en==\r\n"));
    assert!(text.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"));

    // Copies to a directory bucket are signed with keys that are not a session's.
    let text = lines(&mut signer, &credentials, "s3express", EXAMPLE_EPOCH_S);
    assert!(text.contains("\r\nx-amz-security-token: tok/en==\r\n"));
    credentials.of_session = true;
    let text = lines(&mut signer, &credentials, "s3express", EXAMPLE_EPOCH_S);
    assert!(text.contains("\r\nx-amz-s3session-token: tok/en==\r\n"));
    assert!(text.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-s3session-token,"));
}

#[test]
fn a_kept_key_is_dropped_when_anything_it_comes_from_changes() {
    let mut kept = Signer::new();
    let mut rotated = example_credentials();
    rotated.secret_key.push('x');
    for (credentials, service, epoch_s) in [
        (example_credentials(), "s3", EXAMPLE_EPOCH_S),
        (example_credentials(), "s3", EXAMPLE_EPOCH_S + 86_399),
        (example_credentials(), "s3", EXAMPLE_EPOCH_S + 86_400),
        (rotated.clone(), "s3", EXAMPLE_EPOCH_S + 86_400),
        (rotated, "s3express", EXAMPLE_EPOCH_S + 86_400),
    ] {
        let once = lines(&mut Signer::new(), &credentials, service, epoch_s);
        assert_eq!(lines(&mut kept, &credentials, service, epoch_s), once);
        assert_eq!(lines(&mut kept, &credentials, service, epoch_s), once);
    }
}

fn signature_of(headers: &[(&str, &str)]) -> String {
    example("GET", "/k", "", headers, Payload::Unsigned).1
}

#[test]
fn white_space_in_values_is_folded() {
    let plain = signature_of(&[("x-amz-meta-a", "one two")]);
    for value in [" one two", "one two ", "one  two", "\tone\t \ttwo ", "one\u{b}two"] {
        assert_eq!(signature_of(&[("x-amz-meta-a", value)]), plain, "{value:?}");
    }
    assert_ne!(signature_of(&[("x-amz-meta-a", "onetwo")]), plain);
    assert_eq!(signature_of(&[("x-amz-meta-a", " \t ")]), signature_of(&[("x-amz-meta-a", "")]));
}

#[test]
fn order_of_headers_does_not_matter_and_many_are_possible() {
    let names: Vec<String> = (0..60).map(|index| format!("x-amz-meta-{index:02}")).collect();
    let mut headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let forward = example("GET", "/k", "", &headers, Payload::Unsigned);
    headers.reverse();
    assert_eq!(example("GET", "/k", "", &headers, Payload::Unsigned), forward);
    assert_eq!(forward.0.split(';').count(), 63);
    assert!(forward.0.split(';').is_sorted());
}

#[test]
fn a_repeated_header_is_signed_as_a_list() {
    assert_eq!(signature_of(&[("x-a", "1"), ("x-a", " 2")]), signature_of(&[("x-a", "1,2")]));
}

#[test]
fn encodings() {
    let all: String = (0..=255_u8).map(char::from).collect();
    for text in ["", "plain/key-._~", "a b+c", "é/日本/\u{1f600}", "%41", "//a/../b", all.as_str()] {
        let (mut key, mut value) = (String::new(), String::new());
        encode_key(text, &mut key);
        encode_query_value(text, &mut value);
        let expected: String = text
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        assert_eq!(key, expected);
        assert_eq!(value, expected.replace('/', "%2F"));
    }
}

#[test]
fn queries_are_sorted_as_encoded() {
    let mut pairs = [("list-type", "2"), ("a", "é"), ("A", ""), ("[", ""), ("a", "b/ c"), ("a-", "1"), ("prefix", "")];
    assert_eq!(canonical_query(&mut pairs), "%5B=&A=&a=%C3%A9&a=b%2F%20c&a-=1&list-type=2&prefix=");
    assert_eq!(canonical_query(&mut []), "");
}

#[test]
fn debug_shows_no_secret() {
    let mut credentials = example_credentials();
    credentials.session_token = Some("sessiontoken".into());
    let shown = format!("{credentials:?} {:?}", Signer::new());
    assert_eq!(shown, "Credentials { access_key: AKIA***, secret_key: ***, session_token: Some(***) } Signer { .. }");
    credentials.access_key = "short".into();
    assert!(!format!("{credentials:?}").contains("short"));
}
