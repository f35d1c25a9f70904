//! Keys in the files of the AWS command line: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Read are the keys, the region and the endpoint of one profile. What needs calls to get keys (roles, single sign-on, a
//! process) is not done here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use super::LakeError;

/// How long keys are used before the files are looked at again: somebody may have renewed them.
const FRESH: Duration = Duration::from_secs(30);

/// What an environment variable holds, unless it is empty.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a profile stands.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    name: String,
    /// Whether somebody asked for this profile.
    asked: bool,
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

type Settings = BTreeMap<String, String>;

impl Profile {
    pub(super) fn of(environment: Environment<'_>) -> Self {
        let asked = environment("AWS_PROFILE").or_else(|| environment("AWS_DEFAULT_PROFILE"));
        let file = |variable: &str, name: &str| {
            environment(variable).map(PathBuf::from).or_else(|| {
                environment("HOME").map(|home| PathBuf::from(home).join(".aws").join(name))
            })
        };
        Self {
            asked: asked.is_some(),
            name: asked.unwrap_or_else(|| "default".into()),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
        }
    }

    /// The profile's settings from both files; those of the credentials file win. Empty if nobody asked for a profile and
    /// there is none.
    pub(super) fn settings(&self) -> Result<Settings, LakeError> {
        let in_config = if self.name == "default" {
            self.name.clone()
        } else {
            format!("profile {}", self.name)
        };
        let mut settings = Settings::new();
        let mut found = false;
        for (file, section) in [(&self.config, &in_config), (&self.credentials, &self.name)] {
            let Some(file) = file else { continue };
            let text = match std::fs::read_to_string(file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => {
                    let (file, what) = (file.clone(), "it may hold the keys of the store");
                    return Err(LakeError::File { file, what, source });
                }
            };
            if let Some(section) = section_of(&text, section) {
                found = true;
                settings.extend(section);
            }
        }
        if !found && self.asked {
            return Err(LakeError::Settings {
                detail: format!(
                    "AWS_PROFILE names the profile {}, which stands in neither of ~/.aws/credentials and ~/.aws/config; correct it",
                    self.name
                ),
            });
        }
        Ok(settings)
    }

    /// The keys among a profile's settings, if there are any.
    pub(super) fn keys(&self, settings: &Settings) -> Result<Option<AwsCredential>, LakeError> {
        let get = |name: &str| settings.get(name).cloned();
        let (key_id, secret_key) = (get("aws_access_key_id"), get("aws_secret_access_key"));
        if let (Some(key_id), Some(secret_key)) = (key_id, secret_key) {
            let token = get("aws_session_token");
            return Ok(Some(AwsCredential {
                key_id,
                secret_key,
                token,
            }));
        }
        if !self.asked {
            return Ok(None);
        }
        Err(LakeError::Settings {
            detail: format!(
                "the profile {name} has no aws_access_key_id and aws_secret_access_key; for a role, single sign-on or a process, let \
                 `aws configure export-credentials --profile {name} --format env` set the variables",
                name = self.name
            ),
        })
    }
}

/// One section of a file of the AWS command line. Lines that are indented belong to a nested setting.
fn section_of(text: &str, name: &str) -> Option<Settings> {
    let mut settings: Option<Settings> = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(header) = trimmed
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            inside = header.0.split_whitespace().eq(name.split_whitespace());
            if inside {
                settings.get_or_insert_default();
            }
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = trimmed.split_once('=')
            && let Some(settings) = &mut settings
        {
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().into());
        }
    }
    settings
}

/// The keys of a profile, read again as time goes by.
#[derive(Debug)]
pub(super) struct ProfileKeys {
    profile: Profile,
    last: Mutex<(Instant, Arc<AwsCredential>)>,
}

impl ProfileKeys {
    pub(super) fn new(profile: Profile, keys: AwsCredential) -> Self {
        Self {
            profile,
            last: Mutex::new((Instant::now(), Arc::new(keys))),
        }
    }
}

#[async_trait]
impl CredentialProvider for ProfileKeys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() > FRESH {
            let read = self
                .profile
                .settings()
                .and_then(|settings| self.profile.keys(&settings));
            match read {
                Ok(Some(keys)) => last.1 = Arc::new(keys),
                // the store tells whether the old ones still do
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(reason = %error, "the keys in the profile can't be read again");
                }
            }
            last.0 = Instant::now();
        }
        Ok(last.1.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn in_files(
        credentials: &str,
        config: &str,
        name: Option<&str>,
    ) -> (Profile, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        let aws = home.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        std::fs::write(aws.join("credentials"), credentials).unwrap();
        std::fs::write(aws.join("config"), config).unwrap();
        let path = home.path().display().to_string();
        let environment = |variable: &str| match variable {
            "HOME" => Some(path.clone()),
            "AWS_PROFILE" => name.map(str::to_owned),
            _ => None,
        };
        (Profile::of(&environment), home)
    }

    const CREDENTIALS: &str = "# ours\n[default]\naws_access_key_id = A\naws_secret_access_key=b=c\n\n[ work ]\n\
        aws_access_key_id=W\naws_secret_access_key=x\naws_session_token=t\nregion = here\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  region = nested\n[profile work]\nregion=there\n\
        endpoint_url = http://s3\n[profile role]\nrole_arn = arn:x\n";

    #[test]
    fn keys_and_region_are_those_of_the_profile_named() {
        let keys = |name: Option<&str>| {
            let (profile, _home) = in_files(CREDENTIALS, CONFIG, name);
            let settings = profile.settings().unwrap();
            (profile.keys(&settings).unwrap().unwrap(), settings)
        };
        let (found, settings) = keys(None);
        assert_eq!(
            (found.key_id.as_str(), found.secret_key.as_str()),
            ("A", "b=c")
        );
        assert_eq!(found.token, None);
        assert_eq!(settings["region"], "eu-west-1");
        let (found, settings) = keys(Some("work"));
        assert_eq!(
            (found.key_id.as_str(), found.secret_key.as_str()),
            ("W", "x")
        );
        assert_eq!(found.token.as_deref(), Some("t"));
        assert_eq!(settings["region"], "here");
        assert_eq!(settings["endpoint_url"], "http://s3");
    }

    #[test]
    fn a_profile_that_was_asked_for_and_gives_no_keys_is_an_error_that_says_what_to_do() {
        let (profile, _home) = in_files(CREDENTIALS, CONFIG, Some("other"));
        let error = profile.settings().unwrap_err().to_string();
        assert!(error.contains("the profile other"), "{error}");
        let (profile, _home) = in_files(CREDENTIALS, CONFIG, Some("role"));
        let error = profile.keys(&profile.settings().unwrap()).unwrap_err();
        assert!(error.to_string().contains("export-credentials"), "{error}");
    }

    #[test]
    fn without_files_there_are_no_keys_and_no_error() {
        let profile = Profile::of(&|_| None);
        let settings = profile.settings().unwrap();
        assert!(settings.is_empty());
        assert!(profile.keys(&settings).unwrap().is_none());
    }
}
