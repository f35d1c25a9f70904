//! What to do about brokers that don't answer, or don't let a client in: told by what librdkafka says.

use std::time::Duration;

use super::errors::CREDENTIALS;

/// Why nobody answered, and what to do.
pub(super) fn unanswered(brokers: &str, waited: Duration, said: Option<&str>) -> String {
    let says =
        |words: &[&str]| said.is_some_and(|said| words.iter().any(|word| said.contains(word)));
    let advice = if says(&["Failed to resolve"]) {
        "the host's name is not known: correct log.brokers"
    } else if says(&[
        "Disconnected",
        "Send failed",
        "Receive failed",
        "reset by peer",
    ]) {
        "something answers there and closes the connection, as a listener with TLS or SASL does to a client without: \
         set \"security.protocol\" and \"sasl.mechanism\" under log.client (HEADWAY_LOG_CLIENT_SECURITY_PROTOCOL, …), or \
         name a broker's plain listener in log.brokers"
    } else if said.is_some() {
        "start a broker there, or correct log.brokers"
    } else {
        "either nothing is there, or something that speaks another protocol than Kafka's, or wants TLS or SASL: correct \
         log.brokers, or set \"security.protocol\" under log.client (HEADWAY_LOG_CLIENT_SECURITY_PROTOCOL)"
    };
    match said {
        Some(said) => format!(
            "no broker at {brokers} answered within {waited:?} ({}); {advice}",
            plain(said)
        ),
        None => format!("no broker at {brokers} answered within {waited:?}; {advice}"),
    }
}

/// Why a client is not let in, and what to do.
pub(super) fn refused(brokers: &str, said: &str) -> String {
    let advice = if said.contains("supported mechanisms") {
        "that listener does not take this SASL mechanism: correct \"sasl.mechanism\" and \"security.protocol\" under \
         log.client (HEADWAY_LOG_CLIENT_SASL_MECHANISM, …), or name the port of its SASL listener in log.brokers"
            .to_owned()
    } else if said.to_ascii_lowercase().contains("certificate") {
        "name the authority that signed the brokers' certificate as \"ssl.ca.location\" under log.client \
         (HEADWAY_LOG_CLIENT_SSL_CA_LOCATION)"
            .to_owned()
    } else {
        CREDENTIALS.to_owned()
    };
    format!(
        "the brokers at {brokers} refuse it: {}; {advice}",
        plain(said)
    )
}

/// Without the client's name for the connection, and without its statistics.
fn plain(said: &str) -> &str {
    let said = said
        .split_once("/bootstrap: ")
        .map_or(said, |(_, rest)| rest);
    said.split(" (after ").next().unwrap_or(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_says_leads_to_what_to_do() {
        let waited = Duration::from_secs(1);
        for (said, advice) in [
            (
                Some(
                    "h:1/bootstrap: Connect to ipv4#h:1 failed: Connection refused (after 0ms in state CONNECT)",
                ),
                "(Connect to ipv4#h:1 failed: Connection refused); start a broker there, or correct log.brokers",
            ),
            (
                Some(
                    "h:1/bootstrap: Failed to resolve 'h:1': Name or service not known (after 1ms in state CONNECT)",
                ),
                "not known: correct log.brokers",
            ),
            (
                Some(
                    "h:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 5ms in state UP)",
                ),
                "HEADWAY_LOG_CLIENT_SECURITY_PROTOCOL",
            ),
            (None, "another protocol"),
        ] {
            let text = unanswered("h:1", waited, said);
            assert!(
                text.starts_with("no broker at h:1 answered within 1s"),
                "{text}"
            );
            assert!(text.contains(advice), "{text}");
        }
        for (said, advice) in [
            (
                "sasl_plaintext://h:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 3ms in state AUTH_REQ)",
                "Invalid username or password; check \"sasl.username\"",
            ),
            (
                "sasl_plaintext://h:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  (after 1ms in state AUTH_HANDSHAKE)",
                "HEADWAY_LOG_CLIENT_SASL_MECHANISM",
            ),
            (
                "ssl://h:1/bootstrap: SSL handshake failed: certificate verify failed: broker certificate could not be verified",
                "ssl.ca.location",
            ),
        ] {
            let text = refused("h:1", said);
            assert!(
                text.starts_with("the brokers at h:1") && text.contains(advice),
                "{text}"
            );
        }
    }
}
