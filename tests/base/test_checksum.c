/* test_checksum.c - XXH64: published values, pieces, and what it notices. */
#include "base/checksum.h"
#include "temp.h"

static uint64_t of_text(const char *text)
{
    return cab_checksum_of(text, strlen(text));
}

static void published_values(void **state)
{
    (void)state;
    assert_true(of_text("") == UINT64_C(0xEF46DB3751D8E999));
    assert_true(of_text("a") == UINT64_C(0xD24EC4F1A98C6E5B));
    assert_true(of_text("abc") == UINT64_C(0x44BC2CF5AD770999));
    assert_true(of_text("Nobody inspects the spammish repetition") == UINT64_C(0xFBCEA83C8A378BF1));
}

/* However it is cut, the same. */
static void pieces_make_the_whole(void **state)
{
    uint8_t data[257];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37 + 11);
    for (size_t size = 0; size <= sizeof data; size++) {
        const uint64_t whole = cab_checksum_of(data, size);
        for (size_t piece = 1; piece <= 70; piece += 3) {
            cab_checksum checksum = cab_checksum_begin();
            for (size_t at = 0; at < size; at += piece)
                cab_checksum_add(&checksum, data + at, size - at < piece ? size - at : piece);
            assert_true(cab_checksum_end(&checksum) == whole);
            assert_true(cab_checksum_end(&checksum) == whole);
        }
    }
}

static void every_flipped_bit_is_noticed(void **state)
{
    uint8_t data[101];
    (void)state;
    memset(data, 0, sizeof data);
    const uint64_t whole = cab_checksum_of(data, sizeof data);
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(cab_checksum_of(data, sizeof data) != whole);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values),
        cmocka_unit_test(pieces_make_the_whole),
        cmocka_unit_test(every_flipped_bit_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
