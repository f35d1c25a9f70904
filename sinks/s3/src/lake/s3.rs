//! A bucket.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::path::Path;
use object_store::{
    Certificate, ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider,
};
use url::Url;

use super::profile::{Environment, Profile, ProfileKeys};
use super::{Addressing, Credentials, LakeError, Location};

/// Opens a bucket. Where a setting is missing, the places that other S3 clients read are asked:
///
/// - keys: `AWS_ACCESS_KEY_ID`, …; a web identity (`AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`); a profile
///   (`AWS_PROFILE`, `~/.aws/credentials`); the container's and the machine's role;
/// - region: `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile;
/// - endpoint: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the profile;
/// - authorities: `AWS_CA_BUNDLE`, beside the system's.
pub(super) fn open(
    location: &Location,
    environment: Environment<'_>,
) -> Result<(Arc<dyn ObjectStore>, Path, String), LakeError> {
    let wrong = |detail: String| LakeError::Address {
        url: location.url.clone(),
        detail,
    };
    let rest = location.url.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong("it names no bucket".into()));
    }
    let prefix = Path::parse(prefix).map_err(|error| wrong(error.to_string()))?;

    let profile = Profile::of(environment);
    let from_profile = profile.settings()?;
    let first = |names: &[&str], key: &str| {
        let found = names.iter().find_map(|name| environment(name));
        found.or_else(|| from_profile.get(key).cloned())
    };
    let endpoint = location.endpoint.clone().or_else(|| {
        first(
            &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
            "endpoint_url",
        )
    });
    let region = location
        .region
        .clone()
        .or_else(|| first(&["AWS_REGION", "AWS_DEFAULT_REGION"], "region"));
    let ca_file = location
        .ca_file
        .clone()
        .or_else(|| environment("AWS_CA_BUNDLE").map(Into::into));

    let endpoint = endpoint.as_deref().map(parse_endpoint).transpose()?;
    // A certificate for *.s3.amazonaws.com does not fit a name with dots.
    let virtual_host = match location.addressing {
        Addressing::Auto => endpoint.is_none() && !bucket.contains('.'),
        Addressing::Path => false,
        Addressing::VirtualHost => true,
    };
    let plain = endpoint.as_ref().is_some_and(|url| url.scheme() == "http");
    let mut client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(Duration::from_secs(5))
        // each call has a time of its own, by its size
        .with_timeout_disabled();
    if let Some(file) = &ca_file {
        for certificate in certificates(file)? {
            client = client.with_root_certificate(certificate);
        }
    }
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(virtual_host)
        .with_retry(RetryConfig {
            // whoever calls tries again, for as long as it takes
            max_retries: 0,
            ..RetryConfig::default()
        })
        .with_client_options(client)
        .with_region(region.as_deref().unwrap_or("us-east-1"));
    let mut name = format!("s3://{bucket}");
    if let Some(mut url) = endpoint {
        name = format!("{name} at {}", url.as_str().trim_end_matches('/'));
        if virtual_host {
            let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
            url.set_host(Some(&host))
                .map_err(|error| wrong(format!("{host} is no host: {error}")))?;
        }
        builder = builder.with_endpoint(url.as_str().trim_end_matches('/'));
    }
    let in_environment = |names: [&str; 2]| names.iter().all(|name| environment(name).is_some());
    if let Some(given) = &location.credentials {
        let keys = StaticCredentialProvider::new(keys(given)?);
        builder = builder.with_credentials(Arc::new(keys));
    } else if environment("AWS_ACCESS_KEY_ID").is_none()
        && !in_environment(["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"])
        && let Some(keys) = profile.keys(&from_profile)?
    {
        builder = builder.with_credentials(Arc::new(ProfileKeys::new(profile, keys)));
    }
    let store = builder.build().map_err(|error| LakeError::Settings {
        detail: crate::error::chain(&error),
    })?;
    Ok((Arc::new(store), prefix, name))
}

fn keys(given: &Credentials) -> Result<AwsCredential, LakeError> {
    let Credentials {
        access_key_id,
        secret_access_key,
        session_token,
    } = given;
    if access_key_id.is_empty() || secret_access_key.is_empty() {
        return Err(LakeError::Settings {
            detail: "sink_s3.access_key_id and sink_s3.secret_access_key belong together; set both, or neither".into(),
        });
    }
    Ok(AwsCredential {
        key_id: access_key_id.expose().into(),
        secret_key: secret_access_key.expose().into(),
        token: (!session_token.is_empty()).then(|| session_token.expose().into()),
    })
}

fn parse_endpoint(text: &str) -> Result<Url, LakeError> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.query().is_none()
    });
    url.ok_or_else(|| LakeError::Settings {
        detail: format!(
            "the endpoint {text} is no address; write it as http://host:port or https://host"
        ),
    })
}

fn certificates(file: &std::path::Path) -> Result<Vec<Certificate>, LakeError> {
    let pem = std::fs::read(file).map_err(|source| LakeError::File {
        file: file.into(),
        what: "it is to hold the certificates of authorities, as PEM",
        source,
    })?;
    let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() {
        return Err(LakeError::Settings {
            detail: format!(
                "{} holds no certificate; sink_s3.ca_file is to be a PEM file",
                file.display()
            ),
        });
    }
    Ok(found)
}
