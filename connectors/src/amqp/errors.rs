//! What follows from an AMQP error.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use crate::SendError;
use crate::text::{chain, shown};

/// Classifies an error of a connection or a channel.
pub(super) fn classify(place: &str, error: &Error) -> SendError {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return match error.kind() {
            ErrorKind::AuthProviderError(why) => SendError::stop(format!("{place}: {}", shown(why))),
            _ => SendError::retry(format!("{place}: {}", chain(error))),
        };
    };
    let message = format!("{place}: {}", shown(said.get_message().as_str()));
    match said.kind() {
        // A missing exchange, or no right to use it.
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::ACCESSREFUSED) => {
            SendError::stop(message)
        }
        // An unknown virtual host, or no right to use it; credentials.
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => {
            SendError::stop(message)
        }
        AMQPErrorKind::Hard(AMQPHardError::NOTIMPLEMENTED) => SendError::stop(message),
        _ => SendError::retry(message),
    }
}

/// Whether the broker closed the channel because of a message: RabbitMQ answers one that is larger than its
/// `max_message_size` with 406, without saying which.
pub(super) fn blames_a_message(error: &Error) -> bool {
    let ErrorKind::ProtocolError(said) = error.kind() else { return false };
    matches!(
        said.kind(),
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE)
    )
}

/// Whether the error came from the broker, and not from lapin noticing later that the channel is gone.
pub(super) fn is_said_by_broker(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(_))
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;
    use crate::Follow;

    fn follow(id: u16) -> Follow {
        let said = AMQPError::from_id(id, "why".into()).unwrap();
        classify("here", &ErrorKind::ProtocolError(said).into()).follow
    }

    #[test]
    fn what_follows_from_an_error() {
        assert_eq!(follow(404), Follow::Stop);
        assert_eq!(follow(403), Follow::Stop);
        assert_eq!(follow(530), Follow::Stop);
        assert_eq!(follow(541), Follow::Retry);
        assert_eq!(follow(320), Follow::Retry);
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(classify("here", &lost.into()).follow, Follow::Retry);
    }
}
