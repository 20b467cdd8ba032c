//! Tests that run with a log of one shard and with one of three.

/// Runs each of these tests with a log of one shard and of three.
macro_rules! with_shards {
    ($($test:ident,)*) => {
        mod one_shard {
            $(#[tokio::test] async fn $test() { super::$test(1).await })*
        }
        mod three_shards {
            $(#[tokio::test] async fn $test() { super::$test(3).await })*
        }
    };
}
