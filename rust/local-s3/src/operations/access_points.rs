//! Access points: the access point `name` of account `account` is the bucket `name-account`, as its host says.

/// A copy's source without the ARN that may stand for its bucket:
/// `arn:aws:s3:region:account:accesspoint/name/object/key` is `name-account/key`.
pub fn without_arn(path: &str) -> String {
    let parts: Vec<&str> = path.splitn(6, ':').collect();
    if let ["arn", _, "s3", _, account, resource] = parts[..]
        && let Some((name, key)) = resource.strip_prefix("accesspoint/").and_then(|rest| rest.split_once("/object/"))
    {
        return format!("{name}-{account}/{key}");
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_become_buckets() {
        let arn = "arn:aws:s3:us-west-2:123456789012:accesspoint/mine/object/a/object/b:c";
        assert_eq!(without_arn(arn), "mine-123456789012/a/object/b:c");
        assert_eq!(without_arn("bucket/arn:aws:s3"), "bucket/arn:aws:s3");
    }
}
