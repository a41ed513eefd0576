/* The way of a range of elements through the blocks, for one processor level: LEVEL, with vectors of VECTOR_BYTES. */

#ifdef HAS_VECTORS

#define REAL level

/* Floats from n numbers of 16 bits, a multiple of CHUNK, in another order. */
static ALWAYS_INLINE void NAME(widen)(const char *from, int n, enum dtype dtype, float *to)
{
    typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
    enum { WORDS = VECTOR_BYTES / 4 };
    for (int i = 0; dtype == BFLOAT16 && i < n; i += 2 * WORDS) { /* two in a word: each is the upper half of a float */
        words pairs, shifted;
        memcpy(&pairs, from + i * 2, sizeof pairs);
        shifted = pairs << 16;
        pairs &= UINT32_C(0xffff0000);
        memcpy(to + i, &shifted, sizeof shifted);
        memcpy(to + i + WORDS, &pairs, sizeof pairs);
    }
#ifdef LEVEL_HAS_F16C
    for (int i = 0; dtype == FLOAT16 && i < n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i * 2))));
#else
    for (int i = 0; dtype == FLOAT16 && i < n; ++i) {
        uint16_t half;
        memcpy(&half, from + i * 2, sizeof half);
        to[i] = float_of_bits(widen_half(half));
    }
#endif
}

/* A chunk of a block, as floats or doubles; the buffer is for those that were halves. */
static ALWAYS_INLINE const float *JOIN(chunk, float, LEVEL)(const char *block, int start, enum dtype dtype, float *wide)
{
    if (dtype == FLOAT32)
        return (const float *)block + start;
    NAME(widen)(block + start * 2, CHUNK, dtype, wide);
    return wide;
}

static ALWAYS_INLINE const double *JOIN(chunk, double, LEVEL)(const char *block, int start, enum dtype dtype,
                                                              double *wide)
{
    (void)dtype, (void)wide;
    return (const double *)block + start;
}

#undef REAL

#define REAL float
#define BITS int32_t
#define SIGN INT32_MIN
#define INFINITE INT32_C(0x7f800000)
#define HIGH(bits) (bits)
#define HIGH_MANTISSA 23
#define EXPONENT_BIAS 127
#define GUESS guess32
#define SUFFIX ps
#define TO_DOUBLES(x) FLOATS_TO_DOUBLES(x)
#include "_kernel_block.h"
#undef REAL
#undef BITS
#undef SIGN
#undef INFINITE
#undef HIGH
#undef HIGH_MANTISSA
#undef EXPONENT_BIAS
#undef GUESS
#undef SUFFIX
#undef TO_DOUBLES

#define REAL double
#define BITS int64_t
#define SIGN INT64_MIN
#define INFINITE INT64_C(0x7ff0000000000000)
#define HIGH(bits) UPPER_WORDS(bits)
#define HIGH_MANTISSA 20
#define EXPONENT_BIAS 1023
#define GUESS guess64
#define SUFFIX pd
#define TO_DOUBLES(x) JOIN(INTRINSICS, loadu, pd)(x)
#include "_kernel_block.h"
#undef REAL
#undef BITS
#undef SIGN
#undef INFINITE
#undef HIGH
#undef HIGH_MANTISSA
#undef EXPONENT_BIAS
#undef GUESS
#undef SUFFIX
#undef TO_DOUBLES

#define REAL level

/* Count n numbers of 16 bits, whole chunks, whose codes stand in a list. As count_block, which is as fast where
 * encoding is: on a linear axis many coarse values lie on an edge, and are undecided. */
static ALWAYS_INLINE int NAME(count_listed)(const char *block, int n, enum dtype dtype, struct job *job)
{
    const uint16_t *codes = job->plan->axis->codes_of_halves[dtype - BFLOAT16];
    float wide[CHUNK];
    struct JOIN(tally, float, LEVEL) tally = JOIN(no_tally, float, LEVEL)();
    for (int i = 0; i < n; i += CHUNK) {
        NAME(widen)(block + i * 2, CHUNK, dtype, wide);
        JOIN(add_chunk, float, LEVEL)(&tally, wide);
        scatter_listed(block + i * 2, codes, job);
    }
    return JOIN(add_tally, float, LEVEL)(&tally, &job->moments);
}

/* Count n elements, whole chunks. */
static ALWAYS_INLINE void NAME(count_chunks)(const char *block, int n, enum dtype dtype, int linear, struct job *job)
{
    if (dtype == FLOAT64) {
        if (!JOIN(count_block, double, LEVEL)(block, n, dtype, linear, job))
            JOIN(set_apart, double, LEVEL)((const double *)block, n, job);
    } else if (dtype == FLOAT32) {
        if (!JOIN(count_block, float, LEVEL)(block, n, dtype, linear, job))
            JOIN(set_apart, float, LEVEL)((const float *)block, n, job);
    } else if (!(linear ? NAME(count_listed)(block, n, dtype, job)
                        : JOIN(count_block, float, LEVEL)(block, n, dtype, linear, job))) {
        float wide[BLOCK];
        NAME(widen)(block, n, dtype, wide);
        JOIN(set_apart, float, LEVEL)(wide, n, job);
    }
}

/* Count the elements begin ... end - 1 of a job; its tables hold the counts afterwards. */
static ALWAYS_INLINE void NAME(count_elements)(struct job *job, enum dtype dtype, int linear)
{
    const struct source *source = job->source;
    double copied[BLOCK]; /* of any dtype; double for its alignment */
    struct cursor cursor;
    place_cursor(&cursor, source, job->begin);
    for (int64_t at = job->begin; at < job->end; at += BLOCK) {
        int n = job->end - at < BLOCK ? (int)(job->end - at) : BLOCK, whole = n - n % CHUNK;
        const char *block = next_block(&cursor, n, (char *)copied);
        if (whole)
            NAME(count_chunks)(block, whole, dtype, linear, job);
        for (int i = whole; i < n; ++i) {
            double x = load(block + i * source->itemsize, dtype);
            int64_t code = note_value(job->plan, x, job);
            if (code >= 0 && x != 0) /* zeros are added with their counter */
                ++job->tables[code];
        }
    }
}

/* The same, compiled for each dtype and kind of axis. */
static void NAME(count_range)(struct job *job)
{
    const int linear = job->plan->axis->edges != NULL;
    switch (job->source->dtype * 2 + linear) {
    case FLOAT32 * 2:
        NAME(count_elements)(job, FLOAT32, 0);
        break;
    case FLOAT32 * 2 + 1:
        NAME(count_elements)(job, FLOAT32, 1);
        break;
    case FLOAT64 * 2:
        NAME(count_elements)(job, FLOAT64, 0);
        break;
    case FLOAT64 * 2 + 1:
        NAME(count_elements)(job, FLOAT64, 1);
        break;
    case BFLOAT16 * 2:
        NAME(count_elements)(job, BFLOAT16, 0);
        break;
    case BFLOAT16 * 2 + 1:
        NAME(count_elements)(job, BFLOAT16, 1);
        break;
    case FLOAT16 * 2:
        NAME(count_elements)(job, FLOAT16, 0);
        break;
    case FLOAT16 * 2 + 1:
        NAME(count_elements)(job, FLOAT16, 1);
        break;
    }
}

#undef REAL

#endif

#define REAL int16_t
#define MAGNITUDE INT16_MAX
#include "_kernel_units.h"
#undef REAL
#undef MAGNITUDE

#define REAL int32_t
#define MAGNITUDE INT32_MAX
#include "_kernel_units.h"
#undef REAL
#undef MAGNITUDE

#define REAL int64_t
#define MAGNITUDE INT64_MAX
#include "_kernel_units.h"
#undef REAL
#undef MAGNITUDE

#define REAL level

static int64_t NAME(mark_active)(const char *data, int64_t outer, int64_t units, int64_t inner, enum dtype dtype,
                                 int min_exponent, uint8_t *active)
{
    switch (dtype) {
    case FLOAT32:
        return JOIN(mark, int32_t, LEVEL)(data, outer, units, inner, (127 + min_exponent) << 23, active);
    case FLOAT64:
        return JOIN(mark, int64_t, LEVEL)(data, outer, units, inner, (int64_t)(1023 + min_exponent) << 52, active);
    case BFLOAT16:
        return JOIN(mark, int16_t, LEVEL)(data, outer, units, inner, (int16_t)((127 + min_exponent) << 7), active);
    default: /* the smallest number of all is larger */
        return JOIN(mark, int16_t, LEVEL)(data, outer, units, inner, 1, active);
    }
}

#undef REAL
