use super::*;

fn listing(inner: &str) -> Result<ListPage, XmlError> {
    parse_list(
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</ListBucketResult>")
            .as_bytes(),
    )
}

fn key_of(inner: &str) -> Result<String, XmlError> {
    let page = listing(inner)?;
    assert_eq!(page.len(), 1);
    Ok(String::from_utf8(page.key(0).to_vec()).unwrap())
}

#[test]
fn a_page_of_version_2() {
    let page = listing(
        "<Name>b</Name><Prefix>p/</Prefix><NextContinuationToken>1ueGcxLPRx1Tr/XYExHnh==</NextContinuationToken>
         <KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>
         <Contents><Key>p/a</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>
           <ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><ChecksumAlgorithm>CRC32</ChecksumAlgorithm>
           <ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><Size>434234</Size>
           <Owner><ID>75aa</ID><DisplayName>mtd</DisplayName></Owner><StorageClass>STANDARD</StorageClass></Contents>
         <Contents><StorageClass>GLACIER</StorageClass><Size>18446744073709551615</Size><ETag>\"x-2\"</ETag><Key>p/b</Key>
           <RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus></Contents>
         <Contents><Key>p/c</Key><Size> 0 </Size><StorageClass>STANDARD</StorageClass><RestoreStatus>
           <IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>2012-12-21T00:00:00.000Z</RestoreExpiryDate>
           </RestoreStatus></Contents>",
    )
    .unwrap();
    assert_eq!((page.key(0), page.key(1), page.key(2)), (&b"p/a"[..], &b"p/b"[..], &b"p/c"[..]));
    assert_eq!(page.sizes, [434_234, u64::MAX, 0]);
    assert_eq!(page.mtimes, [1_255_369_830, 0, 0]);
    assert_eq!(
        (page.etag(0), page.etag(1), page.etag(2)),
        (&b"fba9dede5f27731c9771645a39863328"[..], &b"x-2"[..], &b""[..])
    );
    assert_eq!(page.storage_classes, [0, 1, 0]);
    assert_eq!(page.class_names, ["STANDARD", "GLACIER"]);
    let restored = RestoreStatus { index: 2, is_in_progress: false, expiry: Some("2012-12-21T00:00:00.000Z".into()) };
    assert_eq!(page.restore_status, [RestoreStatus { index: 1, is_in_progress: true, expiry: None }, restored]);
    assert!(page.is_truncated);
    assert_eq!(page.next_token.as_deref(), Some("1ueGcxLPRx1Tr/XYExHnh=="));
    assert_eq!(page.key_count, 3);
}

#[test]
fn an_empty_page() {
    for page in [
        listing(""),
        listing("<IsTruncated>false</IsTruncated><NextContinuationToken/>"),
        parse_list(b"<ListBucketResult/>"),
    ] {
        let page = page.unwrap();
        assert!(page.is_empty() && page.common_prefixes.is_empty() && !page.is_truncated);
        assert_eq!((page.next_token, page.next_marker, page.key_count), (None, None, 0));
    }
}

#[test]
fn prefixes_and_markers_of_version_1() {
    let page = listing(
        "<EncodingType>url</EncodingType><NextMarker>a+b%2F</NextMarker><IsTruncated>True</IsTruncated>
         <CommonPrefixes><Prefix>a+b%2F</Prefix></CommonPrefixes><CommonPrefixes><Prefix>%E6%97%A5/</Prefix></CommonPrefixes>",
    )
    .unwrap();
    assert_eq!(page.common_prefixes, ["a b/", "日/"]);
    assert_eq!(page.next_marker.as_deref(), Some("a b/"));
    assert_eq!(page.key_count, 2);
}

#[test]
fn url_encoded_keys_are_decoded_wherever_the_encoding_is_told() {
    let contents = "<Contents><Key>a%2Bb+c%20d/%E6%97%A5%00%0a%25</Key><Size>1</Size></Contents>";
    let expected = "a+b c d/日\0\n%";
    assert_eq!(key_of(&format!("<EncodingType>url</EncodingType>{contents}")).unwrap(), expected);
    assert_eq!(key_of(&format!("{contents}<EncodingType>url</EncodingType>")).unwrap(), expected);
    assert_eq!(key_of(contents).unwrap(), "a%2Bb+c%20d/%E6%97%A5%00%0a%25");
}

#[test]
fn offsets_stay_right_when_keys_shrink() {
    let page = listing(
        "<EncodingType>url</EncodingType><Contents><Key>%41%42</Key><Size>1</Size></Contents>\
         <Contents><Key>plain</Key><Size>2</Size></Contents><Contents><Key>50%</Key><Size>3</Size></Contents>\
         <Contents><Key>%zz%4</Key><Size>4</Size></Contents>",
    )
    .unwrap();
    let keys: Vec<&[u8]> = (0..4).map(|index| page.key(index)).collect();
    assert_eq!(keys, [&b"AB"[..], b"plain", b"50%", b"%zz%4"]);
}

#[test]
fn references_and_white_space_in_keys() {
    assert_eq!(
        key_of("<Contents><Key> a&amp;b&lt;&gt;&#x1F;&#13;&apos;<![CDATA[<c>]]> </Key><Size>1</Size></Contents>")
            .unwrap(),
        " a&b<>\u{1f}\r'<c> "
    );
}

#[test]
fn a_key_that_is_not_utf_8_is_named() {
    for inner in [
        "<EncodingType>url</EncodingType><Contents><Key>ok</Key><Size>1</Size></Contents><Contents><Key>a%FF%2f</Key><Size>1</Size></Contents>",
        "<EncodingType>url</EncodingType><CommonPrefixes><Prefix>a%FF/</Prefix></CommonPrefixes>",
    ] {
        let error = listing(inner).unwrap_err();
        assert_eq!(error, XmlError::KeyNotUtf8 { key: b"a\xff/".to_vec() });
        assert_eq!(error.to_string(), "the key b\"a\\xff/\" is not UTF-8");
    }
    // Two halves of one character in neighbouring keys do not make it whole.
    let halves = "<EncodingType>url</EncodingType><Contents><Key>%C3</Key><Size>1</Size></Contents><Contents><Key>%A9</Key><Size>1</Size></Contents>";
    assert_eq!(listing(halves), Err(XmlError::KeyNotUtf8 { key: b"\xc3".to_vec() }));
}

#[test]
fn what_a_dataset_cannot_do_without_is_demanded() {
    let missing = |element| Err(XmlError::Missing { element });
    assert_eq!(listing("<Contents><Size>1</Size></Contents>"), missing("Key"));
    assert_eq!(listing("<Contents><Key>k</Key></Contents>"), missing("Size"));
    for (element, value) in [("Size", "-1"), ("Size", "1e3"), ("Size", ""), ("LastModified", "yesterday")] {
        let inner = format!("<Contents><Key>k</Key><Size>1</Size><{element}>{value}</{element}></Contents>");
        assert_eq!(listing(&inner), Err(XmlError::BadValue { element, value: value.into() }));
    }
    assert!(matches!(listing("<IsTruncated>maybe</IsTruncated>"), Err(XmlError::BadValue { .. })));
    assert!(matches!(listing("<Contents><Key>k</Key><Size>1</Size>"), Err(XmlError::Malformed { .. })));
}

#[test]
fn a_namespace_prefix_and_no_declaration() {
    let xml = b"<s3:ListBucketResult xmlns:s3='u'><s3:Contents><s3:Key>k</s3:Key><s3:Size>7</s3:Size></s3:Contents></s3:ListBucketResult>";
    let page = parse_list(xml).unwrap();
    assert_eq!((page.key(0), page.sizes[0], page.storage_classes[0]), (&b"k"[..], 7, NO_STORAGE_CLASS));
}

#[test]
fn other_documents_are_told_apart() {
    match parse_list(b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>") {
        Err(XmlError::Service(error)) => assert_eq!(error.code, "AccessDenied"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(parse_list(b"<html></html>"), Err(XmlError::UnexpectedRoot { .. })));
}

#[test]
fn too_many_storage_classes_are_refused() {
    let classes = |count: usize| -> String {
        (0..count)
            .map(|index| {
                format!("<Contents><Key>k</Key><Size>1</Size><StorageClass>C{index}</StorageClass></Contents>")
            })
            .collect()
    };
    assert_eq!(listing(&classes(255)).unwrap().class_names.len(), 255);
    assert!(matches!(listing(&classes(256)), Err(XmlError::BadValue { element: "StorageClass", .. })));
}

#[test]
fn a_page_of_uploads() {
    let page = parse_uploads(
        b"<ListMultipartUploadsResult><Bucket>b</Bucket><NextKeyMarker>c+d</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>
          <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><Upload><Key>a%2Fb</Key><UploadId>u1</UploadId>
          <Initiator><ID>x</ID></Initiator><Initiated>2009-10-12T17:50:30.000Z</Initiated></Upload></ListMultipartUploadsResult>",
    )
    .unwrap();
    assert_eq!(page.uploads, [Upload { key: "a/b".into(), upload_id: "u1".into(), initiated_s: 1_255_369_830 }]);
    assert!(page.is_truncated);
    assert_eq!((page.next_key_marker.as_deref(), page.next_upload_id_marker.as_deref()), (Some("c d"), Some("u2")));
    let without_id = b"<ListMultipartUploadsResult><Upload><Key>k</Key></Upload></ListMultipartUploadsResult>";
    assert_eq!(parse_uploads(without_id), Err(XmlError::Missing { element: "UploadId" }));
}
