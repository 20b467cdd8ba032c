//! mqtt-protocol-core's packets: built from the values of ours, and read from bytes.

use bytestring::ByteString;
use mqtt_protocol_core::mqtt::packet::{
    self as theirs, GenericPacket, PayloadFormat, Property, SubEntry, SubOpts, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::*;

/// Any of their packets.
pub(super) type Theirs = GenericPacket<u16>;
type Result<T> = std::result::Result<T, MqttError>;

/// Reads the body of a packet of this kind; all of it, or it is refused.
pub(super) fn parse(version: Version, first: u8, body: &[u8]) -> Result<Theirs> {
    macro_rules! of {
        ($version:ident) => {
            match first >> 4 {
                1 => whole($version::Connect::parse(body), body),
                2 => whole($version::Connack::parse(body), body),
                3 => whole($version::Publish::parse(first & 15, body.into()), body),
                4 => whole($version::Puback::parse(body), body),
                5 => whole($version::Pubrec::parse(body), body),
                6 => whole($version::Pubrel::parse(body), body),
                7 => whole($version::Pubcomp::parse(body), body),
                8 => whole($version::Subscribe::parse(body), body),
                9 => whole($version::Suback::parse(body), body),
                10 => whole($version::Unsubscribe::parse(body), body),
                11 => whole($version::Unsuback::parse(body), body),
                12 => whole($version::Pingreq::parse(body), body),
                13 => whole($version::Pingresp::parse(body), body),
                14 => whole($version::Disconnect::parse(body), body),
                _ => Err(MqttError::MalformedPacket),
            }
        };
    }
    match version {
        Version::V5 if first >> 4 == 15 => whole(v5_0::Auth::parse(body), body),
        Version::V5 => of!(v5_0),
        Version::V311 => of!(v3_1_1),
    }
}

fn whole<P: Into<Theirs>>(parsed: Result<(P, usize)>, body: &[u8]) -> Result<Theirs> {
    let (packet, bytes) = parsed?;
    if bytes == body.len() { Ok(packet.into()) } else { Err(MqttError::MalformedPacket) }
}

/// Their packet with the values of ours.
pub(super) fn build(version: Version, packet: &Packet) -> Result<Theirs> {
    match version {
        Version::V5 => build_v5(packet),
        Version::V311 => build_v311(packet),
    }
}

/// A code of theirs.
fn code<C: TryFrom<u8>>(reason: u8) -> Result<C> {
    C::try_from(reason).map_err(|_| MqttError::MalformedPacket)
}

fn qos(qos: Qos) -> theirs::Qos {
    match qos {
        Qos::AtMostOnce => theirs::Qos::AtMostOnce,
        Qos::AtLeastOnce => theirs::Qos::AtLeastOnce,
        Qos::ExactlyOnce => theirs::Qos::ExactlyOnce,
    }
}

/// Appends the properties that are there, in the order in which ours are written.
macro_rules! put {
    ($to:ident; $($value:expr => $name:ident;)*) => {
        $(if let Some(value) = $value {
            $to.push(Property::$name(theirs::$name::new(value)?));
        })*
    };
}
/// Sets those values that are there.
macro_rules! with {
    ($builder:expr; $($value:expr => |$builder_name:ident, $name:ident| $set:expr;)*) => {{
        let builder = $builder;
        $(let builder = match &$value {
            Some($name) => { let $builder_name = builder; $set }
            None => builder,
        };)*
        builder
    }};
}

macro_rules! build_connect {
    ($version:ident, $connect:expr) => {
        with!($version::Connect::builder()
                .clean_start($connect.clean_start)
                .keep_alive($connect.keep_alive_s)
                .client_id(&*$connect.client_id)?;
            $connect.will => |b, will| b.will_message(&*will.topic, will.payload.to_vec(), qos(will.qos), will.retain)?;
            $connect.username => |b, name| b.user_name(&**name)?;
            $connect.password => |b, password| b.password(password.to_vec())?;
        )
    };
}

macro_rules! build_publish {
    ($version:ident, $publish:expr) => {
        with!($version::Publish::builder()
                .topic_name(&*$publish.topic)?
                .qos(qos($publish.qos))
                .dup($publish.dup)
                .retain($publish.retain)
                .payload(&$publish.payload[..]);
            $publish.id => |b, id| b.packet_id(id.get());
        )
    };
}

fn build_v311(packet: &Packet) -> Result<Theirs> {
    Ok(match packet {
        Packet::Connect(connect) => build_connect!(v3_1_1, connect).build()?.into(),
        Packet::Connack(connack) => v3_1_1::Connack::builder()
            .session_present(connack.session_present)
            .return_code(code(connack.reason.to_v311_connack().unwrap())?)
            .build()?
            .into(),
        Packet::Publish(publish) => build_publish!(v3_1_1, publish).build()?.into(),
        Packet::Puback(ack) => v3_1_1::Puback::builder().packet_id(ack.id.get()).build()?.into(),
        Packet::Pubrec(ack) => v3_1_1::Pubrec::builder().packet_id(ack.id.get()).build()?.into(),
        Packet::Pubrel(ack) => v3_1_1::Pubrel::builder().packet_id(ack.id.get()).build()?.into(),
        Packet::Pubcomp(ack) => v3_1_1::Pubcomp::builder().packet_id(ack.id.get()).build()?.into(),
        Packet::Subscribe(subscribe) => v3_1_1::Subscribe::builder()
            .packet_id(subscribe.id.get())
            .entries(entries(&subscribe.filters)?)
            .build()?
            .into(),
        Packet::Suback(suback) => {
            let codes: Result<Vec<_>> = suback.reasons.iter().map(|reason| code(reason.0)).collect();
            v3_1_1::Suback::builder().packet_id(suback.id.get()).return_codes(codes?).build()?.into()
        }
        Packet::Unsubscribe(unsubscribe) => v3_1_1::Unsubscribe::builder()
            .packet_id(unsubscribe.id.get())
            .entries(unsubscribe.filters.iter().map(|filter| &**filter))?
            .build()?
            .into(),
        Packet::Unsuback(unsuback) => {
            v3_1_1::Unsuback::builder().packet_id(unsuback.id.get()).build()?.into()
        }
        Packet::Pingreq => v3_1_1::Pingreq::builder().build()?.into(),
        Packet::Pingresp => v3_1_1::Pingresp::builder().build()?.into(),
        Packet::Disconnect(_) => v3_1_1::Disconnect::builder().build()?.into(),
        Packet::Auth(_) => return Err(MqttError::MalformedPacket),
    })
}

/// Success without properties is written without either, and other reasons without properties without these.
macro_rules! build_short {
    ($builder:expr, $packet:expr, $properties:expr) => {{
        let properties = $properties;
        let said = (!properties.is_empty() || $packet.reason.is_error() || $packet.reason.0 != 0)
            .then_some($packet.reason.0);
        let properties = (!properties.is_empty()).then_some(properties);
        with!($builder;
            said => |b, reason| b.reason_code(code(*reason)?);
            properties => |b, properties| b.props(properties.clone());
        )
        .build()?
        .into()
    }};
}

fn build_v5(packet: &Packet) -> Result<Theirs> {
    Ok(match packet {
        Packet::Connect(connect) => {
            let builder = build_connect!(v5_0, connect).props(of_connect(&connect.properties)?);
            match &connect.will {
                Some(will) => builder.will_props(of_will(&will.properties)?),
                None => builder,
            }
            .build()?
            .into()
        }
        Packet::Connack(connack) => v5_0::Connack::builder()
            .session_present(connack.session_present)
            .reason_code(code(connack.reason.0)?)
            .props(of_connack(&connack.properties)?)
            .build()?
            .into(),
        Packet::Publish(publish) => {
            build_publish!(v5_0, publish).props(of_publish(&publish.properties)?).build()?.into()
        }
        Packet::Puback(ack) => {
            build_short!(v5_0::Puback::builder().packet_id(ack.id.get()), ack, of_ack(&ack.properties)?)
        }
        Packet::Pubrec(ack) => {
            build_short!(v5_0::Pubrec::builder().packet_id(ack.id.get()), ack, of_ack(&ack.properties)?)
        }
        Packet::Pubrel(ack) => {
            build_short!(v5_0::Pubrel::builder().packet_id(ack.id.get()), ack, of_ack(&ack.properties)?)
        }
        Packet::Pubcomp(ack) => {
            build_short!(v5_0::Pubcomp::builder().packet_id(ack.id.get()), ack, of_ack(&ack.properties)?)
        }
        Packet::Subscribe(subscribe) => {
            let SubscribeProperties { subscription_id, user_properties } = &subscribe.properties;
            let mut properties = Vec::new();
            put!(properties; subscription_id.map(SubscriptionId::get) => SubscriptionIdentifier;);
            pairs_to(&mut properties, user_properties)?;
            v5_0::Subscribe::builder()
                .packet_id(subscribe.id.get())
                .entries(entries(&subscribe.filters)?)
                .props(properties)
                .build()?
                .into()
        }
        Packet::Suback(suback) => {
            let codes: Result<Vec<_>> = suback.reasons.iter().map(|reason| code(reason.0)).collect();
            v5_0::Suback::builder()
                .packet_id(suback.id.get())
                .reason_codes(codes?)
                .props(of_suback(&suback.properties)?)
                .build()?
                .into()
        }
        Packet::Unsubscribe(unsubscribe) => {
            let mut properties = Vec::new();
            pairs_to(&mut properties, &unsubscribe.properties.user_properties)?;
            v5_0::Unsubscribe::builder()
                .packet_id(unsubscribe.id.get())
                .entries(unsubscribe.filters.iter().map(|filter| &**filter))?
                .props(properties)
                .build()?
                .into()
        }
        Packet::Unsuback(unsuback) => {
            let codes: Result<Vec<_>> = unsuback.reasons.iter().map(|reason| code(reason.0)).collect();
            v5_0::Unsuback::builder()
                .packet_id(unsuback.id.get())
                .reason_codes(codes?)
                .props(of_suback(&unsuback.properties)?)
                .build()?
                .into()
        }
        Packet::Pingreq => v5_0::Pingreq::builder().build()?.into(),
        Packet::Pingresp => v5_0::Pingresp::builder().build()?.into(),
        Packet::Disconnect(disconnect) => {
            build_short!(v5_0::Disconnect::builder(), disconnect, of_disconnect(&disconnect.properties)?)
        }
        Packet::Auth(auth) => v5_0::Auth::builder()
            .reason_code(code(auth.reason.0)?)
            .props(of_auth(&auth.properties)?)
            .build()?
            .into(),
    })
}

fn entries(filters: &[TopicRequest]) -> Result<Vec<SubEntry>> {
    let entry = |request: &TopicRequest| {
        let SubscriptionOptions { qos: highest, no_local, retain_as_published, retain_handling } =
            request.options;
        let handling = match retain_handling {
            RetainHandling::Always => theirs::RetainHandling::SendRetained,
            RetainHandling::New => theirs::RetainHandling::SendRetainedIfNotExists,
            RetainHandling::Never => theirs::RetainHandling::DoNotSendRetained,
        };
        let options = SubOpts::new()
            .set_qos(qos(highest))
            .set_nl(no_local)
            .set_rap(retain_as_published)
            .set_rh(handling);
        SubEntry::new(&*request.filter, options)
    };
    filters.iter().map(entry).collect()
}

fn pairs_to(properties: &mut Vec<Property>, pairs: &[(ByteString, ByteString)]) -> Result<()> {
    for (key, value) in pairs {
        properties.push(Property::UserProperty(theirs::UserProperty::new(&**key, &**value)?));
    }
    Ok(())
}

fn format(is_text: bool) -> PayloadFormat {
    if is_text { PayloadFormat::String } else { PayloadFormat::Binary }
}

fn of_connect(ours: &ConnectProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all;
        ours.session_expiry_s => SessionExpiryInterval;
        ours.receive_maximum.map(NonZeroU16::get) => ReceiveMaximum;
        ours.packet_bytes_max.map(NonZeroU32::get) => MaximumPacketSize;
        ours.topic_alias_maximum => TopicAliasMaximum;
        ours.request_response_information.map(u8::from) => RequestResponseInformation;
        ours.request_problem_information.map(u8::from) => RequestProblemInformation;
    );
    pairs_to(&mut all, &ours.user_properties)?;
    put!(all;
        ours.authentication_method.as_deref() => AuthenticationMethod;
        ours.authentication_data.as_deref().map(<[u8]>::to_vec) => AuthenticationData;
    );
    Ok(all)
}

fn of_will(ours: &WillProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all;
        ours.delay_s => WillDelayInterval;
        ours.payload_is_text.map(format) => PayloadFormatIndicator;
        ours.message_expiry_s => MessageExpiryInterval;
        ours.content_type.as_deref() => ContentType;
        ours.response_topic.as_deref() => ResponseTopic;
        ours.correlation_data.as_deref().map(<[u8]>::to_vec) => CorrelationData;
    );
    pairs_to(&mut all, &ours.user_properties)?;
    Ok(all)
}

fn of_connack(ours: &ConnackProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all;
        ours.session_expiry_s => SessionExpiryInterval;
        ours.receive_maximum.map(NonZeroU16::get) => ReceiveMaximum;
        ours.maximum_qos.map(Qos::bits) => MaximumQos;
        ours.retain_available.map(u8::from) => RetainAvailable;
        ours.packet_bytes_max.map(NonZeroU32::get) => MaximumPacketSize;
        ours.assigned_client_id.as_deref() => AssignedClientIdentifier;
        ours.topic_alias_maximum => TopicAliasMaximum;
        ours.reason_string.as_deref() => ReasonString;
    );
    pairs_to(&mut all, &ours.user_properties)?;
    put!(all;
        ours.wildcard_available.map(u8::from) => WildcardSubscriptionAvailable;
        ours.subscription_id_available.map(u8::from) => SubscriptionIdentifierAvailable;
        ours.shared_available.map(u8::from) => SharedSubscriptionAvailable;
        ours.server_keep_alive_s => ServerKeepAlive;
        ours.response_information.as_deref() => ResponseInformation;
        ours.server_reference.as_deref() => ServerReference;
        ours.authentication_method.as_deref() => AuthenticationMethod;
        ours.authentication_data.as_deref().map(<[u8]>::to_vec) => AuthenticationData;
    );
    Ok(all)
}

fn of_publish(ours: &PublishProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all;
        ours.payload_is_text.map(format) => PayloadFormatIndicator;
        ours.message_expiry_s => MessageExpiryInterval;
        ours.content_type.as_deref() => ContentType;
        ours.response_topic.as_deref() => ResponseTopic;
        ours.correlation_data.as_deref().map(<[u8]>::to_vec) => CorrelationData;
    );
    for id in &ours.subscription_ids {
        put!(all; Some(id.get()) => SubscriptionIdentifier;);
    }
    put!(all; ours.topic_alias => TopicAlias;);
    pairs_to(&mut all, &ours.user_properties)?;
    Ok(all)
}

fn of_ack(ours: &AckProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all; ours.reason_string.as_deref() => ReasonString;);
    pairs_to(&mut all, &ours.user_properties)?;
    Ok(all)
}

fn of_suback(ours: &SubackProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all; ours.reason_string.as_deref() => ReasonString;);
    pairs_to(&mut all, &ours.user_properties)?;
    Ok(all)
}

fn of_disconnect(ours: &DisconnectProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all;
        ours.session_expiry_s => SessionExpiryInterval;
        ours.reason_string.as_deref() => ReasonString;
    );
    pairs_to(&mut all, &ours.user_properties)?;
    put!(all; ours.server_reference.as_deref() => ServerReference;);
    Ok(all)
}

fn of_auth(ours: &AuthProperties) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    put!(all;
        ours.authentication_method.as_deref() => AuthenticationMethod;
        ours.authentication_data.as_deref().map(<[u8]>::to_vec) => AuthenticationData;
        ours.reason_string.as_deref() => ReasonString;
    );
    pairs_to(&mut all, &ours.user_properties)?;
    Ok(all)
}
