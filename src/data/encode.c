/* encode.c - one text through all stages of a tokenizer (tokenizer_internal.h).
 *
 * Added tokens are cut out twice: those marked normalized = false from the text as it is, the others from each stretch
 * between them after normalisation. What is left goes through the pre-tokenizers to BPE. */
#include "base/memory.h"
#include "data/tokenizer_internal.h"
#include "data/utf8.h"

#include <string.h>

struct cab_encoder {
    const cab_tokenizer *tokenizer;
    cab_matcher matcher;
    cab_bpe_state *bpe;
    cab_bytes text, spare; /* normalisation */
    cab_bytes scratch[CAB_SPLITTERS_MAX];
    cab_ids *ids; /* of the call under way */
};

cab_status cab_encoder_new(const cab_tokenizer *tokenizer, cab_encoder **out)
{
    cab_status status = CAB_OK;
    cab_encoder *encoder = NULL;
    *out = NULL;
    CAB_TRY(CAB_NEW(&encoder, 1, "an encoder"));
    encoder->tokenizer = tokenizer;
    CAB_GOTO(cab_matcher_init(&encoder->matcher, tokenizer->name));
    CAB_GOTO(cab_bpe_state_new(&encoder->bpe));
    *out = encoder;
    encoder = NULL;
done:
    cab_encoder_free(encoder);
    return status;
}

void cab_encoder_free(cab_encoder *encoder)
{
    if (encoder == NULL)
        return;
    cab_matcher_free(&encoder->matcher);
    cab_bpe_state_free(encoder->bpe);
    cab_bytes_free(&encoder->text);
    cab_bytes_free(&encoder->spare);
    for (int i = 0; i < CAB_SPLITTERS_MAX; i++)
        cab_bytes_free(&encoder->scratch[i]);
    cab_free(encoder);
}

static cab_status encode_word(void *user, const char *word, size_t size)
{
    cab_encoder *encoder = user;
    const cab_tokenizer *t = encoder->tokenizer;
    return cab_bpe_encode(&t->bpe, &t->vocab, encoder->bpe, word, size, encoder->ids);
}

/* ---- added tokens --------------------------------------------------------------------------------------------------- */

/* single_word: no letter, digit or underscore may touch the token. */
static bool stands_alone(const char *text, size_t size, size_t begin, size_t end)
{
    unsigned length = 0;
    if (begin > 0 && cab_unicode_is_word(cab_utf8_decode(text + cab_utf8_previous(text, begin), &length)))
        return false;
    return end == size || !cab_unicode_is_word(cab_utf8_decode(text + end, &length));
}

static size_t skip_space_before(const char *text, size_t floor, size_t at)
{
    unsigned length = 0;
    while (at > floor) {
        size_t previous = cab_utf8_previous(text, at);
        if (!cab_unicode_is_space(cab_utf8_decode(text + previous, &length)))
            break;
        at = previous;
    }
    return at;
}

static size_t skip_space_after(const char *text, size_t size, size_t at)
{
    unsigned length = 0;
    while (at < size && cab_unicode_is_space(cab_utf8_decode(text + at, &length)))
        at += length;
    return at;
}

typedef cab_status (*stretch_sink)(cab_encoder *encoder, const char *text, size_t size, bool first);

/* Pushes the ids of added tokens and sends what lies between them on, in order. */
static cab_status cut_added(cab_encoder *encoder, const cab_trie *trie, const char *text, size_t size, bool first,
                            stretch_sink sink)
{
    size_t done = 0, begin = 0, end = 0;
    for (size_t from = 0;; from = end) {
        const cab_added *added = cab_trie_find(trie, text, size, from, &begin, &end);
        if (added == NULL)
            break;
        if (added->single_word && !stands_alone(text, size, begin, end))
            continue;
        if (begin < done) /* white space taken by the rstrip of the token before */
            begin = done;
        size_t left = added->lstrip ? skip_space_before(text, done, begin) : begin;
        size_t right = added->rstrip ? skip_space_after(text, size, end) : end;
        if (left > done)
            CAB_TRY(sink(encoder, text + done, left - done, first && done == 0));
        CAB_TRY(cab_ids_push(encoder->ids, added->id));
        done = right > done ? right : done;
    }
    return done < size ? sink(encoder, text + done, size - done, first && done == 0) : CAB_OK;
}

static cab_status split_stretch(cab_encoder *encoder, const char *text, size_t size, bool first)
{
    return cab_splitters_apply(&encoder->tokenizer->splitters, &encoder->matcher, encoder->scratch, text, size, first,
                               encode_word, encoder);
}

static cab_status normalize_stretch(cab_encoder *encoder, const char *text, size_t size, bool first)
{
    const cab_tokenizer *t = encoder->tokenizer;
    if (t->normalizers.count == 0)
        return cut_added(encoder, &t->normalized, text, size, first, split_stretch);
    encoder->text.count = 0;
    CAB_TRY(cab_bytes_append(&encoder->text, text, size));
    CAB_TRY(cab_normalize(&t->normalizers, &encoder->matcher, &encoder->text, &encoder->spare));
    return cut_added(encoder, &t->normalized, encoder->text.data, encoder->text.count, first, split_stretch);
}

cab_status cab_encoder_encode(cab_encoder *encoder, const char *text, size_t size, cab_ids *ids)
{
    size_t valid = cab_utf8_valid(text, size);
    if (valid < size)
        return cab_fail(CAB_EFORMAT, "text is not UTF-8: byte 0x%02X at offset %zu", (unsigned)(uint8_t)text[valid],
                        valid);
    encoder->ids = ids;
    return cut_added(encoder, &encoder->tokenizer->raw, text, size, true, normalize_stretch);
}

cab_status cab_tokenizer_encode(const cab_tokenizer *tokenizer, const char *text, size_t size, cab_ids *ids)
{
    cab_encoder *encoder = NULL;
    CAB_TRY(cab_encoder_new(tokenizer, &encoder));
    cab_status status = cab_encoder_encode(encoder, text, size, ids);
    cab_encoder_free(encoder);
    return status;
}
