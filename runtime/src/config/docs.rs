//! The page that lists every key.

use super::known::known;

/// docs/configuration.md, as it should be.
pub fn configuration_page() -> String {
    let mut page = String::from(INTRODUCTION);
    for section in &known().sections {
        page.push_str(&format!(
            "\n## `[{}]`\n\n{}\n\n| key | default | what it is |\n|---|---|---|\n",
            section.name, section.doc
        ));
        for key in &section.keys {
            let default = if key.open() {
                "none".to_owned()
            } else {
                format!("`{}`", key.default)
            };
            let secret = if key.secret { " **Secret**." } else { "" };
            page.push_str(&format!(
                "| `{}` | {default} | {}{secret} |\n",
                key.name,
                key.doc.replace('|', "\\|")
            ));
        }
    }
    page
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from runtime/defaults.toml by `cargo run --release -p runtime --example config_docs`; do not edit. -->

All binaries know the same keys, and each reads what concerns it. A key's value is the first of these that is there:

1. a flag: a binary's own, or `--set section.key=value`;
2. the environment: `HEADWAY_<SECTION>_<KEY>`, such as `HEADWAY_LOG_BROKERS` for `brokers` in `[log]`; lists are separated by commas;
3. the file that `--config FILE` (or `HEADWAY_CONFIG`) names, in TOML;
4. the default below.

`--print-config` prints the result, with the origin of each value. A key that does not exist, a value of the wrong type and a
limit that is not kept are errors, all reported at once; so is an environment variable that begins with `HEADWAY_` and is none
of ours. (On Kubernetes set `enableServiceLinks: false`: it would add such variables for services named `headway-…`.)

Keys that end in `_ms` are whole milliseconds, those in `_bytes` bytes. A secret is shown as `***` wherever it would appear, and
is not taken from a flag, which other users of a machine can see; `<key>_file`, such as `password_file`, names a file to read it
from.
";
