//! The example does what it says.

#[path = "../examples/quickstart.rs"]
#[expect(dead_code, reason = "its `main` is for cargo")]
mod quickstart;

#[tokio::test]
async fn runs() {
    quickstart::run(None).await.unwrap();
}
