//! Writes docs/configuration.md from the defaults file.

fn main() -> std::io::Result<()> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if let Some(folder) = std::path::Path::new(page).parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(page, runtime::config::configuration_page())
}
