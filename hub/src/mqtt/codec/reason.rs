//! Reason codes (2.4) and the return codes of 3.1.1.

use std::fmt;

/// How an operation went: below 0x80 well, from 0x80 on not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReasonCode(pub u8);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl ReasonCode {
            $($(#[$doc])* #[doc = concat!("`", stringify!($code), "`")] pub const $name: ReasonCode = ReasonCode($code);)*

            /// The name that the specification gives the code.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "Unknown reason",
                }
            }
        }
    };
}

codes! {
    /// Success, Normal disconnection, Granted QoS 0.
    SUCCESS = 0x00, "Success";
    /// Granted QoS 1.
    GRANTED_QOS_1 = 0x01, "Granted QoS 1";
    /// Granted QoS 2.
    GRANTED_QOS_2 = 0x02, "Granted QoS 2";
    /// The client goes and wants its will published.
    DISCONNECT_WITH_WILL = 0x04, "Disconnect with Will Message";
    /// Nobody subscribes to the topic.
    NO_MATCHING_SUBSCRIBERS = 0x10, "No matching subscribers";
    /// There was no such subscription.
    NO_SUBSCRIPTION_EXISTED = 0x11, "No subscription existed";
    /// Enhanced authentication goes on.
    CONTINUE_AUTHENTICATION = 0x18, "Continue authentication";
    /// The client starts authentication anew.
    REAUTHENTICATE = 0x19, "Re-authenticate";
    /// An error without a code of its own.
    UNSPECIFIED_ERROR = 0x80, "Unspecified error";
    /// The bytes are not laid out as the specification says.
    MALFORMED_PACKET = 0x81, "Malformed Packet";
    /// A packet that must not come, or not now.
    PROTOCOL_ERROR = 0x82, "Protocol Error";
    /// The server does not accept it, for a reason of its own.
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83, "Implementation specific error";
    /// The protocol level is not 4 or 5.
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "Unsupported Protocol Version";
    /// The client identifier is not accepted.
    CLIENT_IDENTIFIER_NOT_VALID = 0x85, "Client Identifier not valid";
    /// User name or password is wrong.
    BAD_USER_NAME_OR_PASSWORD = 0x86, "Bad User Name or Password";
    /// Not allowed.
    NOT_AUTHORIZED = 0x87, "Not authorized";
    /// The server cannot be used now.
    SERVER_UNAVAILABLE = 0x88, "Server unavailable";
    /// The server is busy.
    SERVER_BUSY = 0x89, "Server busy";
    /// The client is barred.
    BANNED = 0x8A, "Banned";
    /// The server shuts down.
    SERVER_SHUTTING_DOWN = 0x8B, "Server shutting down";
    /// The authentication method is not known.
    BAD_AUTHENTICATION_METHOD = 0x8C, "Bad authentication method";
    /// Nothing came for one and a half times the keep alive.
    KEEP_ALIVE_TIMEOUT = 0x8D, "Keep Alive timeout";
    /// Another connection uses the same client identifier.
    SESSION_TAKEN_OVER = 0x8E, "Session taken over";
    /// The filter is not accepted.
    TOPIC_FILTER_INVALID = 0x8F, "Topic Filter invalid";
    /// The topic is not accepted.
    TOPIC_NAME_INVALID = 0x90, "Topic Name invalid";
    /// The packet identifier is in use already.
    PACKET_IDENTIFIER_IN_USE = 0x91, "Packet Identifier in use";
    /// The packet identifier is not known.
    PACKET_IDENTIFIER_NOT_FOUND = 0x92, "Packet Identifier not found";
    /// More messages in flight than Receive Maximum allows.
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "Receive Maximum exceeded";
    /// The topic alias is 0 or over the maximum.
    TOPIC_ALIAS_INVALID = 0x94, "Topic Alias invalid";
    /// The packet is larger than the peer accepts.
    PACKET_TOO_LARGE = 0x95, "Packet too large";
    /// Messages come too fast.
    MESSAGE_RATE_TOO_HIGH = 0x96, "Message rate too high";
    /// A limit of the server is reached.
    QUOTA_EXCEEDED = 0x97, "Quota exceeded";
    /// Somebody decided so.
    ADMINISTRATIVE_ACTION = 0x98, "Administrative action";
    /// The payload is not what its format indicator says.
    PAYLOAD_FORMAT_INVALID = 0x99, "Payload format invalid";
    /// The server keeps no retained messages.
    RETAIN_NOT_SUPPORTED = 0x9A, "Retain not supported";
    /// The server does not do this QoS.
    QOS_NOT_SUPPORTED = 0x9B, "QoS not supported";
    /// Use another server for now.
    USE_ANOTHER_SERVER = 0x9C, "Use another server";
    /// Use another server from now on.
    SERVER_MOVED = 0x9D, "Server moved";
    /// The server has no shared subscriptions.
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "Shared Subscriptions not supported";
    /// Connections come too fast.
    CONNECTION_RATE_EXCEEDED = 0x9F, "Connection rate exceeded";
    /// The connection lasted as long as it may.
    MAXIMUM_CONNECT_TIME = 0xA0, "Maximum connect time";
    /// The server has no subscription identifiers.
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1, "Subscription Identifiers not supported";
    /// The server has no wildcard subscriptions.
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2, "Wildcard Subscriptions not supported";
}

impl ReasonCode {
    /// Whether something failed.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// The CONNACK return code of 3.1.1 (table 3.1) nearest to this one; `None` if 3.1.1 has nothing to say
    /// and the connection is to be closed without a CONNACK.
    #[must_use]
    pub fn to_v311_connack(self) -> Option<u8> {
        match self {
            ReasonCode::SUCCESS => Some(0),
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => Some(1),
            ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => Some(2),
            ReasonCode::SERVER_UNAVAILABLE
            | ReasonCode::SERVER_BUSY
            | ReasonCode::SERVER_SHUTTING_DOWN
            | ReasonCode::QUOTA_EXCEEDED
            | ReasonCode::CONNECTION_RATE_EXCEEDED
            | ReasonCode::UNSPECIFIED_ERROR => Some(3),
            ReasonCode::BAD_USER_NAME_OR_PASSWORD => Some(4),
            ReasonCode::NOT_AUTHORIZED | ReasonCode::BANNED => Some(5),
            _ => None,
        }
    }

    /// The reason code that stands for a CONNACK return code of 3.1.1; `None` past 5.
    #[must_use]
    pub fn from_v311_connack(code: u8) -> Option<ReasonCode> {
        Some(match code {
            0 => ReasonCode::SUCCESS,
            1 => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            2 => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            3 => ReasonCode::SERVER_UNAVAILABLE,
            4 => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            5 => ReasonCode::NOT_AUTHORIZED,
            _ => return None,
        })
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_old_codes() {
        assert_eq!(ReasonCode::SESSION_TAKEN_OVER.to_string(), "Session taken over (0x8E)");
        assert_eq!(ReasonCode(0x7f).name(), "Unknown reason");
        for code in 0..=5 {
            let reason = ReasonCode::from_v311_connack(code).unwrap();
            assert_eq!(reason.to_v311_connack(), Some(code));
        }
        assert_eq!(ReasonCode::from_v311_connack(6), None);
        assert_eq!(ReasonCode::PROTOCOL_ERROR.to_v311_connack(), None);
    }
}
