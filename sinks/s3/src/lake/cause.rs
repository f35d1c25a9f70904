//! What is wrong with a store, in words that say what to do.

use std::fmt;

use object_store::Error;

/// Why a store did not do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The bucket is not there.
    NoBucket,
    /// The keys are right, and may not do this.
    Denied,
    /// The server doesn't know the access key.
    UnknownKey,
    /// The secret key does not belong to the access key.
    WrongSecret,
    /// The keys were temporary, and their time is over.
    Expired,
    /// There are no keys.
    NoCredentials,
    /// The bucket is in another region.
    Region,
    /// The clocks differ too much.
    Clock,
    /// The server's certificate is signed by nobody that is trusted here.
    Certificate,
    /// `https://` to a server that speaks plain HTTP.
    PlainServer,
    /// `http://` to a server that speaks TLS.
    TlsServer,
    /// Something else answers at this address.
    NotS3,
    /// The host's name can't be resolved.
    UnknownHost,
    /// Nothing answers at this address.
    Unreachable,
    /// The answer did not come in time.
    Slow,
    /// There is no room left.
    Full,
    /// Others write the same object at this moment.
    Conflict,
    /// The store lacks what is needed.
    Unsupported,
    /// Something else.
    Other,
}

impl Cause {
    /// Sorts a store's failure. S3 names failures by codes in the answer's body, which `object_store` leaves in the texts of
    /// its errors; what comes from the connection is told by the texts of the HTTP client.
    pub fn of(error: &Error) -> Self {
        let text = crate::error::chain(error);
        if let Some(code) = code(&text) {
            return Self::of_code(code, error);
        }
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&[
            "169.254.169.254",
            "169.254.170.2",
            "fd00:ec2::254",
            "MissingAccessKeyId",
            "MissingSecretAccessKey",
        ]) {
            Self::NoCredentials
        } else if says(&["invalid peer certificate", "certificate verify failed"]) {
            Self::Certificate
        } else if says(&["InvalidContentType", "corrupt message"]) {
            Self::PlainServer
        } else if says(&[
            "HTTP request to an HTTPS server",
            "HTTP request was sent to HTTPS port",
        ]) {
            Self::TlsServer
        } else if says(&["dns error", "failed to lookup address"]) {
            Self::UnknownHost
        } else if says(&[
            "Connection refused",
            "tcp connect error",
            "unreachable",
            "tls handshake eof",
            "reset by peer",
            "connection closed",
        ]) {
            Self::Unreachable
        } else if says(&["timed out", "deadline has elapsed", "TimedOut"]) {
            Self::Slow
        } else if says(&["Received redirect without LOCATION"]) {
            Self::Region
        } else {
            match error {
                Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied,
                Error::NotFound { .. } => Self::NotS3,
                Error::AlreadyExists { .. } | Error::Precondition { .. } => Self::Conflict,
                Error::InvalidPath { .. }
                | Error::NotSupported { .. }
                | Error::NotImplemented { .. }
                | Error::UnknownConfigurationKey { .. } => Self::Unsupported,
                _ if says(&[
                    "status code: 4",
                    "status code: 3",
                    "501 Not Implemented",
                    "Unable to extract metadata from headers",
                    "Got invalid list response",
                    "parse Content-Length",
                ]) =>
                {
                    Self::NotS3
                }
                _ => Self::Other,
            }
        }
    }

    fn of_code(code: &str, error: &Error) -> Self {
        match code {
            "NoSuchBucket" | "InvalidBucketName" => Self::NoBucket,
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "InvalidPayer" => {
                Self::Denied
            }
            "InvalidAccessKeyId" => Self::UnknownKey,
            "SignatureDoesNotMatch" => Self::WrongSecret,
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => Self::Expired,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "TemporaryRedirect" => {
                Self::Region
            }
            "RequestTimeTooSkewed" => Self::Clock,
            "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" => Self::Full,
            "ConditionalRequestConflict" | "OperationAborted" => Self::Conflict,
            "NotImplemented" => Self::Unsupported,
            _ => match error {
                Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied,
                _ => Self::Other,
            },
        }
    }

    /// Whether the same call may succeed later, when it did so before. Someone may bring back a server, a certificate or a
    /// clock while a run waits.
    pub(super) fn may_pass(self) -> bool {
        !matches!(
            self,
            Self::NoBucket
                | Self::Denied
                | Self::UnknownKey
                | Self::WrongSecret
                | Self::Unsupported
        )
    }

    /// Whether the same call may succeed a little later, when it never succeeded yet.
    pub(super) fn may_pass_at_start(self) -> bool {
        self.may_pass()
            && !matches!(
                self,
                Self::Expired
                    | Self::NoCredentials
                    | Self::Region
                    | Self::Clock
                    | Self::Certificate
                    | Self::PlainServer
                    | Self::TlsServer
                    | Self::NotS3
            )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBucket => "there is no such bucket; create it, or correct sink_s3.url",
            Self::Denied => {
                "the credentials may not do this; they need s3:PutObject, s3:GetObject and s3:ListBucket there"
            }
            Self::UnknownKey => {
                "the server doesn't know the access key; correct sink_s3.access_key_id, or the AWS variable or profile that it came from"
            }
            Self::WrongSecret => {
                "the secret key does not belong to the access key; correct sink_s3.secret_access_key, or the AWS variable or profile that it came from"
            }
            Self::Expired => "the credentials have expired; renew them",
            Self::NoCredentials => {
                "no credentials were found; set sink_s3.access_key_id and sink_s3.secret_access_key, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws/credentials, or give the machine a role"
            }
            Self::Region => "the bucket is in another region; set sink_s3.region",
            Self::Clock => "this machine's clock and the server's differ too much; set them right",
            Self::Certificate => {
                "the server's certificate is not trusted; set sink_s3.ca_file to the PEM file of the authority that signed it"
            }
            Self::PlainServer => {
                "the server does not speak TLS; begin sink_s3.endpoint with http://"
            }
            Self::TlsServer => "the server speaks TLS only; begin sink_s3.endpoint with https://",
            Self::NotS3 => "what answers there is no S3 server; correct sink_s3.endpoint",
            Self::UnknownHost => "the host's name is not known; correct sink_s3.endpoint",
            Self::Unreachable => {
                "nothing answers there; start the server, or correct sink_s3.endpoint (and its http:// or https://)"
            }
            Self::Slow => "no answer came in time; look after the server and the network, or correct sink_s3.endpoint",
            Self::Full => "the store is full; free space there",
            Self::Conflict => "somebody else is writing it",
            Self::Unsupported => "the store can't do this",
            Self::Other => "it failed; look after the server, or correct sink_s3.endpoint",
        })
    }
}

/// The code in an answer of S3.
fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code)
}
