/* The way of a range of elements through the blocks, for one processor level (LEVEL). */

#define REAL float
#define BITS int32_t
#define SIGN INT32_MIN
#define INFINITE INT32_C(0x7f800000)
#define HIGH(bits) (bits)
#define HIGH_MANTISSA 23
#define EXPONENT_BIAS 127
#define GUESS guess32
#include "_kernel_block.h"
#undef REAL
#undef BITS
#undef SIGN
#undef INFINITE
#undef HIGH
#undef HIGH_MANTISSA
#undef EXPONENT_BIAS
#undef GUESS

#define REAL double
#define BITS int64_t
#define SIGN INT64_MIN
#define INFINITE INT64_C(0x7ff0000000000000)
#define HIGH(bits) ((int32_t)((bits) >> 32))
#define HIGH_MANTISSA 20
#define EXPONENT_BIAS 1023
#define GUESS guess64
#include "_kernel_block.h"
#undef REAL
#undef BITS
#undef SIGN
#undef INFINITE
#undef HIGH
#undef HIGH_MANTISSA
#undef EXPONENT_BIAS
#undef GUESS

#define REAL level

static void NAME(widen_bfloats)(const char *from, int n, float *to)
{
    for (int i = 0; i < n; ++i) {
        uint16_t half;
        memcpy(&half, from + i * 2, sizeof half);
        to[i] = float_of_bits((uint32_t)half << 16);
    }
}

static void NAME(widen_halves)(const char *from, int n, float *to)
{
    int i = 0;
#ifdef LEVEL_HAS_F16C
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i * 2))));
#endif
    for (; i < n; ++i) {
        uint16_t half;
        memcpy(&half, from + i * 2, sizeof half);
        to[i] = float_of_bits(widen_half(half));
    }
}

/* Count the elements begin ... end - 1 of a job; its tables hold the counts afterwards. */
static void NAME(count_range)(struct job *job)
{
    const struct plan *plan = job->plan;
    const struct source *source = job->source;
    const int64_t block_bytes = (int64_t)BLOCK * source->itemsize;
    const size_t width = table_width(plan);
    int32_t codes[BLOCK];
    float wide[BLOCK];
    double copied[BLOCK]; /* of any dtype; double for its alignment */
    struct cursor cursor;
    place_cursor(&cursor, source, job->begin);
    int64_t unflushed = 0;
    for (int64_t at = job->begin; at < job->end; at += BLOCK) {
        int n = job->end - at < BLOCK ? (int)(job->end - at) : BLOCK;
        const char *block = next_block(&cursor, n, (char *)copied);
        const char *next = block != (const char *)copied && job->end - at >= 2 * BLOCK ? block + block_bytes : NULL;
        switch (source->dtype) {
        case FLOAT64:
            JOIN(encode, double, LEVEL)(plan, (const double *)block, n, codes, job);
            break;
        case FLOAT32:
            JOIN(encode, float, LEVEL)(plan, (const float *)block, n, codes, job);
            break;
        case BFLOAT16:
            NAME(widen_bfloats)(block, n, wide);
            JOIN(encode, float, LEVEL)(plan, wide, n, codes, job);
            break;
        case FLOAT16:
            NAME(widen_halves)(block, n, wide);
            JOIN(encode, float, LEVEL)(plan, wide, n, codes, job);
            break;
        }
        scatter(codes, n, job->tables, width, next, source->itemsize);
        unflushed += n;
        if (unflushed >= FLUSH_ELEMENTS) {
            fold_tables(plan, job->tables, job->counts);
            unflushed = 0;
        }
    }
    fold_tables(plan, job->tables, job->counts);
}

#undef REAL
