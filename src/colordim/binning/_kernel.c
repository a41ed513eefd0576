/* Counting on the CPU, in one pass over memory: bins, counters and moments of a tensor.
 *
 * A plain C interface, called by kernel.py; reference.py defines what every count must be. Elements are taken in
 * chunks of a few vectors. Vector code writes a code for each element of a chunk (its place in a table) and adds to
 * the moments, while scalar code adds the codes of the chunk before to a few tables side by side, so that equal
 * neighbours do not wait for each other. Either alone would leave half of the processor idle. _kernel_block.h holds
 * both; it is compiled once per element type and processor level, and the best level is picked when the library is
 * loaded. Vectors are those of GCC and clang; what other compilers build counts one by one.
 *
 * Codes: 0 is underflow, 1 ... bins are the bins, bins + 1 is overflow. The SPARE codes behind them take zeros, of
 * which a ReLU makes so many that they would queue at one counter. NaN and infinities get the codes of underflow or
 * overflow, and are taken off again where a sum shows that there are any.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && !defined(PLAIN_C)
#define HAS_VECTORS 1
#endif
#if defined(HAS_VECTORS) && defined(__x86_64__)
#define X86_LEVELS 1
#include <immintrin.h>
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* Loops are vectorised for their own sake; sums may be taken in any order. */
#define PRAGMA(text) _Pragma(#text)
#ifdef _MSC_VER
#define VECTORISE(clauses)
#else
#define VECTORISE(clauses) PRAGMA(omp simd clauses)
#endif

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)(address))
#define ALWAYS_INLINE __forceinline
#endif

/* The interface that kernel.py expects; raised whenever a signature or a structure changes. */
#ifndef INTERFACE
#define INTERFACE 2
#endif

enum { BLOCK = 2048, CHUNK = 32, TABLES = 4, SPARE = 16, MAX_THREADS = 64, MAX_DIMS = 64 };

/* Axes with more bins are counted one by one: the codes of halves are kept in 16 bits. */
enum { MAX_TABLE_BINS = 65000 };

/* Tables count in 32 bits: so many elements at once, per thread. Tests choose less. */
#ifndef ROUND_ELEMENTS
#define TABLE_COUNTER uint32_t
#define ROUND_ELEMENTS (INT64_C(1) << 31)
#endif
typedef TABLE_COUNTER table_counter;

enum dtype { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };

/* Positions of the counters behind the bins of a row, and of its moments. */
enum { UNDER, OVER, NOT_A_NUMBER, POS_INF, NEG_INF, ZEROS, SIZE };
enum { SUM, SUM_SQ, MINIMUM, MAXIMUM };

/* Filled in by kernel.py. `edges` is NULL for a signed-log axis, else bins + 1 ascending values. `codes_of_halves` is
 * for bfloat16 and float16 what colordim_encode_halves wrote, if there are few enough bins for tables. */
struct axis {
    int64_t bins;
    const double *edges;
    const uint16_t *codes_of_halves[2];
    int32_t bits;
    int32_t min_exponent;
    int32_t per_sign;
};

/* Runs a function in several threads at once: GOMP_parallel of the OpenMP library that torch itself uses, given by
 * kernel.py, so that there is one pool of threads and not two that fight. */
typedef void run_in_threads(void (*function)(void *), void *data, unsigned threads, unsigned flags);

/* Filled in by kernel.py: where the counts of a tensor go, and how they are taken. */
struct target {
    const struct axis *axis;
    int64_t *row;
    double *moments;
    run_in_threads *run;
    int32_t level;
};

/* What a linear axis needs to guess the bin of a value; see encode_linear. */
struct guess {
    double scale, offset, twice_margin, top;
};

/* What is the same for all elements of one call. */
struct plan {
    const struct axis *axis;
    struct guess guess32, guess64;
    double scale;             /* bins per unit of value */
    double smallest, largest; /* signed-log: magnitudes that the bins tell apart */
    int64_t zero_code;        /* where zeros belong */
    int32_t spares[SPARE];
};

/* The elements of a tensor: strides in elements, the last dimension innermost, at least one dimension. */
struct source {
    const char *data;
    enum dtype dtype;
    int itemsize;
    int dims;
    const int64_t *sizes, *strides;
};

/* What is counted apart; and which of it the tables hold as underflow and overflow. */
struct counters {
    int64_t nan, pos_inf, neg_inf, zeros, false_under, false_over;
};

/* A sum whose rounding errors are carried along, so that billions of blocks add up to a float64's precision. */
struct exact_sum {
    double total, carry;
};

struct moments {
    struct exact_sum sum, sum_sq;
    double min, max;
};

/* The share of one thread, and what it found. */
struct job {
    const struct plan *plan;
    const struct source *source;
    int64_t begin, end;
    table_counter *tables; /* NULL: counted one by one */
    size_t width;          /* of a table */
    struct counters counters;
    struct moments moments;
    char padding[64]; /* jobs of different threads share no cache line */
};

static void add_exactly(struct exact_sum *sum, double value)
{
    double total = sum->total + value;
    double part = total - sum->total;
    if (isfinite(total)) /* squares of float64 values may overflow; infinity has no rounding error */
        sum->carry += (sum->total - (total - part)) + (value - part);
    sum->total = total;
}

static double total_of(const struct exact_sum *sum)
{
    return isfinite(sum->total) ? sum->total + sum->carry : sum->total;
}

static void note_extremes(struct moments *moments, double low, double high)
{
    if (low < moments->min)
        moments->min = low;
    if (high > moments->max)
        moments->max = high;
}

/* ---- one element: the definition, and the way for what is too small or too odd for vectors ------------- */

/* Inlined, so that it is compiled for the level of its caller: a processor changes between old and new vector
 * registers at the cost of a hundred cycles. */
static ALWAYS_INLINE int64_t code_linear(const struct plan *plan, double x)
{
    const double *edges = plan->axis->edges;
    int64_t bins = plan->axis->bins;
    if (!(x >= edges[0]))
        return 0;
    if (x >= edges[bins])
        return x > edges[bins] ? bins + 1 : bins; /* the right edge lies inside the last bin */
    double guess = (x - edges[0]) * plan->scale;
    int64_t bin = guess < (double)bins ? (int64_t)guess : bins - 1;
    while (x < edges[bin])
        --bin;
    while (x >= edges[bin + 1])
        ++bin;
    return bin + 1;
}

static ALWAYS_INLINE int64_t code_log(const struct plan *plan, double x)
{
    const struct axis *axis = plan->axis;
    int64_t pattern, bucket;
    memcpy(&pattern, &x, sizeof pattern);
    bucket = ((pattern & INT64_MAX) >> (52 - axis->bits)) - ((int64_t)(1023 + axis->min_exponent) << axis->bits);
    bucket = bucket < 0 ? 0 : bucket > axis->per_sign ? axis->per_sign : bucket;
    return axis->per_sign + 1 + (pattern < 0 ? -1 - bucket : 1 + bucket);
}

static ALWAYS_INLINE int64_t code_of(const struct plan *plan, double x)
{
    if (x == 0)
        return plan->zero_code;
    return plan->axis->edges ? code_linear(plan, x) : code_log(plan, x);
}

/* Count a value, except for its bin. Return its code, or -1 if it is NaN or infinite. */
static ALWAYS_INLINE int64_t note_value(const struct plan *plan, double x, struct job *job)
{
    if (isnan(x)) {
        ++job->counters.nan;
        return -1;
    }
    if (isinf(x)) {
        ++*(x > 0 ? &job->counters.pos_inf : &job->counters.neg_inf);
        return -1;
    }
    job->counters.zeros += x == 0;
    add_exactly(&job->moments.sum, x);
    add_exactly(&job->moments.sum_sq, x * x);
    note_extremes(&job->moments, x, x);
    return code_of(plan, x);
}

/* Where a row counts a code. */
static int64_t *counter_of(int64_t *row, int64_t bins, int64_t code)
{
    return row + (code == 0 ? bins + UNDER : code > bins ? bins + OVER : code - 1);
}

static float float_of_bits(uint32_t pattern)
{
    float x;
    memcpy(&x, &pattern, sizeof x);
    return x;
}

/* A float16 by its bits. Multiplying shifts the exponent, for subnormals too; 31 stands for infinity and NaN. */
static uint32_t widen_half(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, pattern;
    float shifted = float_of_bits(magnitude) * 0x1p112f;
    memcpy(&pattern, &shifted, sizeof pattern);
    pattern |= (half & 0x7c00) == 0x7c00 ? UINT32_C(0x7f800000) : 0;
    return pattern | (uint32_t)(half & 0x8000) << 16;
}

static double value_of_half(uint16_t half, enum dtype dtype)
{
    return float_of_bits(dtype == BFLOAT16 ? (uint32_t)half << 16 : widen_half(half));
}

static double load(const char *address, enum dtype dtype)
{
    uint16_t half;
    float single;
    double real;
    switch (dtype) {
    case FLOAT32:
        memcpy(&single, address, sizeof single);
        return single;
    case FLOAT64:
        memcpy(&real, address, sizeof real);
        return real;
    default:
        memcpy(&half, address, sizeof half);
        return value_of_half(half, dtype);
    }
}

/* ---- where the elements lie ---------------------------------------------------------------------------- */

/* A place in a tensor: the indices of its dimensions and the address they lead to. */
struct cursor {
    const struct source *source;
    const char *address;
    int64_t index[MAX_DIMS];
};

static void place_cursor(struct cursor *cursor, const struct source *source, int64_t position)
{
    cursor->source = source;
    cursor->address = source->data;
    for (int d = source->dims - 1; d >= 0; --d) {
        cursor->index[d] = position % source->sizes[d];
        position /= source->sizes[d];
        cursor->address += cursor->index[d] * source->strides[d] * source->itemsize;
    }
}

/* Move on within the innermost dimension, and to the next run at its end. */
static void advance_cursor(struct cursor *cursor, int64_t n)
{
    const struct source *source = cursor->source;
    int d = source->dims - 1;
    cursor->index[d] += n;
    cursor->address += n * source->strides[d] * source->itemsize;
    for (; d > 0 && cursor->index[d] == source->sizes[d]; --d) {
        cursor->address += (source->strides[d - 1] - source->sizes[d] * source->strides[d]) * source->itemsize;
        cursor->index[d] = 0;
        ++cursor->index[d - 1];
    }
}

static int64_t left_in_run(const struct cursor *cursor)
{
    int d = cursor->source->dims - 1;
    return cursor->source->sizes[d] - cursor->index[d];
}

#define COPY_RUN(type)                                                         \
    for (int64_t i = 0; i < n; ++i)                                            \
        memcpy(to + i * (int64_t)sizeof(type), from + i * step * (int64_t)sizeof(type), sizeof(type));

static void copy_run(char *to, const char *from, int64_t n, int64_t step, int itemsize)
{
    if (step == 1)
        memcpy(to, from, (size_t)(n * itemsize));
    else if (itemsize == 2)
        COPY_RUN(uint16_t)
    else if (itemsize == 4)
        COPY_RUN(uint32_t)
    else
        COPY_RUN(uint64_t)
}

/* Return where the next n elements lie one after the other: in place if they do, else copied to `buffer`. */
static const char *next_block(struct cursor *cursor, int64_t n, char *buffer)
{
    const struct source *source = cursor->source;
    int64_t step = source->strides[source->dims - 1];
    if (step == 1 && left_in_run(cursor) >= n) {
        const char *address = cursor->address;
        advance_cursor(cursor, n);
        return address;
    }
    for (int64_t done = 0; done < n;) {
        int64_t part = left_in_run(cursor) < n - done ? left_in_run(cursor) : n - done;
        copy_run(buffer + done * source->itemsize, cursor->address, part, step, source->itemsize);
        advance_cursor(cursor, part);
        done += part;
    }
    return buffer;
}

/* ---- tables -------------------------------------------------------------------------------------------- */

/* The distance of two tables: not a multiple of 4096 bytes, which would make a processor mistake one for the other. */
static size_t table_width(const struct axis *axis)
{
    size_t width = (size_t)axis->bins + 2 + SPARE;
    return width % 1024 < 32 ? width + 32 : width;
}

/* Count the codes of a chunk. */
static ALWAYS_INLINE void scatter(const int32_t *codes, struct job *job)
{
    table_counter *t0 = job->tables, *t1 = t0 + job->width, *t2 = t1 + job->width, *t3 = t2 + job->width;
    for (int i = 0; i < CHUNK; i += 4) {
        uint64_t pair, other;
        memcpy(&pair, codes + i, sizeof pair);
        memcpy(&other, codes + i + 2, sizeof other);
        ++t0[(uint32_t)pair];
        ++t1[pair >> 32];
        ++t2[(uint32_t)other];
        ++t3[other >> 32];
    }
}

/* Count a chunk of numbers of 16 bits, whose codes stand in a list. */
static ALWAYS_INLINE void scatter_listed(const char *halves, const uint16_t *codes, struct job *job)
{
    table_counter *t0 = job->tables, *t1 = t0 + job->width, *t2 = t1 + job->width, *t3 = t2 + job->width;
    for (int i = 0; i < CHUNK; i += 4) {
        uint64_t four;
        memcpy(&four, halves + i * 2, sizeof four);
        ++t0[codes[four & 0xffff]];
        ++t1[codes[four >> 16 & 0xffff]];
        ++t2[codes[four >> 32 & 0xffff]];
        ++t3[codes[four >> 48]];
    }
}

/* The codes that finite values of a job have, except for zeros, from first to last; none if last < first. */
static void range_of_codes(const struct job *job, int64_t *first, int64_t *last)
{
    *first = 1, *last = 0;
    if (job->moments.min <= job->moments.max) {
        *first = code_of(job->plan, job->moments.min);
        *last = code_of(job->plan, job->moments.max);
    }
}

/* Add the tables of a job up into its first, so that less passes from one thread to another. */
static void gather_tables(struct job *job)
{
    table_counter *t0 = job->tables;
    for (int table = 1; table < TABLES; ++table) {
        const table_counter *other = t0 + (size_t)table * job->width;
        for (size_t code = 0; code < job->width; ++code)
            t0[code] = (table_counter)(t0[code] + other[code]);
    }
}

/* ---- blocks, per element type and processor level -------------------------------------------------------- */

#define JOIN3(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN3(a, b, c)
#define NAME(name) JOIN(name, REAL, LEVEL)

#define LEVEL baseline
#define INTRINSICS _mm
#define UPPER_WORDS(bits) __builtin_convertvector((bits) >> 32, NAME(codes))
#define FLOATS_TO_DOUBLES(x) _mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(x))))
#define VECTOR_BYTES 16
#include "_kernel_level.h"
#undef LEVEL
#undef INTRINSICS
#undef UPPER_WORDS
#undef FLOATS_TO_DOUBLES
#undef VECTOR_BYTES

#ifdef X86_LEVELS

#define LEVEL_HAS_F16C

#define LEVEL avx2
#define INTRINSICS _mm256
#define UPPER_WORDS(bits)                                                                                            \
    ((NAME(codes))_mm256_castsi256_si128(                                                                            \
        _mm256_permutevar8x32_epi32((__m256i)(bits), _mm256_setr_epi32(1, 3, 5, 7, 1, 3, 5, 7))))
#define FLOATS_TO_DOUBLES(x) _mm256_cvtps_pd(_mm_loadu_ps(x))
#define VECTOR_BYTES 32
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include "_kernel_level.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LEVEL
#undef INTRINSICS
#undef UPPER_WORDS
#undef FLOATS_TO_DOUBLES
#undef VECTOR_BYTES

#define LEVEL avx512
#define INTRINSICS _mm512
#define UPPER_WORDS(bits) __builtin_convertvector((bits) >> 32, NAME(codes))
#define FLOATS_TO_DOUBLES(x) _mm512_cvtps_pd(_mm256_loadu_ps(x))
#define VECTOR_BYTES 64
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#include "_kernel_level.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LEVEL
#undef INTRINSICS
#undef UPPER_WORDS
#undef FLOATS_TO_DOUBLES
#undef VECTOR_BYTES

#endif

typedef void count_range(struct job *job);
typedef int64_t mark_active(const char *data, int64_t outer, int64_t units, int64_t inner, enum dtype dtype,
                            int min_exponent, uint8_t *active);

static const struct level {
    count_range *count; /* NULL: there are no vectors */
    mark_active *mark;
} levels[] = {
#ifdef HAS_VECTORS
    {count_range_level_baseline, mark_active_level_baseline},
#else
    {NULL, mark_active_level_baseline},
#endif
#ifdef X86_LEVELS
    {count_range_level_avx2, mark_active_level_avx2},
    {count_range_level_avx512, mark_active_level_avx512},
#endif
};

/* Number of the best processor level that runs here: 0 baseline, 1 AVX2, 2 AVX-512. */
EXPORT int colordim_best_level(void)
{
#ifdef X86_LEVELS
    __builtin_cpu_init();
    /* Every processor with both of these has F16C too, a name that GCC before 11 does not know here. */
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")))
        return 0;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return 1;
    return 2;
#else
    return 0;
#endif
}

/* ---- threads ------------------------------------------------------------------------------------------- */

/* Subnormals are values like others: they are not flushed to zero here, whatever the caller has set. */
#if defined(X86_LEVELS)
typedef unsigned int float_mode;

static float_mode keep_subnormals(void)
{
    float_mode mode = _mm_getcsr();
    _mm_setcsr(mode & ~0x8040u); /* flush to zero, denormals are zero */
    return mode;
}

static void restore_float_mode(float_mode mode)
{
    _mm_setcsr(mode);
}
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t float_mode;

static void restore_float_mode(float_mode mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}

static float_mode keep_subnormals(void)
{
    float_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    restore_float_mode(mode & ~(UINT64_C(1) << 24));
    return mode;
}
#else
typedef int float_mode;

static float_mode keep_subnormals(void)
{
    return 0;
}

static void restore_float_mode(float_mode mode)
{
    (void)mode;
}
#endif

struct team {
    count_range *count;
    struct job *jobs;
    int size, taken;
};

static void work(void *data)
{
    struct team *team = data;
    float_mode mode = keep_subnormals();
    for (;;) {
#ifdef __GNUC__
        int mine = __atomic_fetch_add(&team->taken, 1, __ATOMIC_RELAXED);
#else
        int mine = team->taken++; /* only one thread where there is no GOMP_parallel */
#endif
        if (mine >= team->size)
            break;
        memset(team->jobs[mine].tables, 0, TABLES * team->jobs[mine].width * sizeof(table_counter));
        team->count(&team->jobs[mine]);
        gather_tables(&team->jobs[mine]);
    }
    restore_float_mode(mode);
}

/* ---- one call ------------------------------------------------------------------------------------------ */

/* Rounding of the guess x * scale + offset is a few times `epsilon` of its largest term. */
static struct guess guess_for(const struct axis *axis, double scale, double epsilon, double smallest, double largest)
{
    double lo = axis->edges[0], hi = axis->edges[axis->bins];
    double reach = fmax(fabs(lo), fabs(hi)), margin = 16 * epsilon * reach * scale;
    struct guess guess = {0, 1, 2, 1}; /* nothing is decided */
    if (margin < 0.125 && scale > smallest && scale < largest && reach < largest) {
        guess.scale = scale;
        guess.offset = 1 + margin - lo * scale;
        guess.twice_margin = 2 * margin;
        guess.top = (double)axis->bins + 1.5;
    }
    return guess;
}

static struct plan plan_for(const struct axis *axis)
{
    struct plan plan = {.axis = axis, .zero_code = axis->per_sign + 1};
    for (int i = 0; i < SPARE; ++i)
        plan.spares[i] = (int32_t)axis->bins + 2 + i;
    if (axis->edges) {
        plan.scale = (double)axis->bins / (axis->edges[axis->bins] - axis->edges[0]);
        plan.guess32 = guess_for(axis, plan.scale, 0x1p-24, 1e-30, 1e30);
        plan.guess64 = guess_for(axis, plan.scale, 0x1p-53, 1e-290, 1e290);
        plan.zero_code = code_linear(&plan, 0);
    } else {
        plan.smallest = ldexp(1, axis->min_exponent);
        plan.largest = ldexp(1, axis->min_exponent + (axis->per_sign >> axis->bits));
    }
    return plan;
}

static void start_job(struct job *job, const struct plan *plan, const struct source *source)
{
    memset(job, 0, sizeof *job);
    job->plan = plan;
    job->source = source;
    job->moments.min = INFINITY;
    job->moments.max = -INFINITY;
}

/* Add the first tables of a job to the row. */
static void fold_tables(struct job *job, int tables, int64_t *row)
{
    const int64_t bins = job->plan->axis->bins;
    const size_t width = job->width;
    int64_t first, last, zeros = 0;
    range_of_codes(job, &first, &last);
    first = first < 1 ? 1 : first;
    last = last > bins ? bins : last;
    for (int table = 0; table < tables; ++table) {
        const table_counter *counts = job->tables + (size_t)table * width;
        row[bins + UNDER] += counts[0];
        row[bins + OVER] += counts[bins + 1];
        for (int spare = 0; spare < SPARE; ++spare)
            zeros += counts[bins + 2 + spare];
    }
    if (tables == 1)
        for (int64_t code = first; code <= last; ++code)
            row[code - 1] += job->tables[code];
    else
        for (int64_t code = first; code <= last; ++code) {
            const table_counter *counts = job->tables + code;
            row[code - 1] += (int64_t)counts[0] + counts[width] + counts[2 * width] + counts[3 * width];
        }
    row[bins + UNDER] -= job->counters.false_under;
    row[bins + OVER] -= job->counters.false_over;
    job->counters.zeros += zeros;
    *counter_of(row, bins, job->plan->zero_code) += job->counters.zeros;
}

/* Add the rest of what a job found to the row. */
static void finish_job(const struct job *job, int64_t *row, double *moments)
{
    int64_t bins = job->plan->axis->bins;
    row[bins + NOT_A_NUMBER] += job->counters.nan;
    row[bins + POS_INF] += job->counters.pos_inf;
    row[bins + NEG_INF] += job->counters.neg_inf;
    row[bins + ZEROS] += job->counters.zeros;
    row[bins + SIZE] += job->end - job->begin;
    moments[SUM] += total_of(&job->moments.sum);
    moments[SUM_SQ] += total_of(&job->moments.sum_sq);
    moments[MINIMUM] = fmin(moments[MINIMUM], job->moments.min);
    moments[MAXIMUM] = fmax(moments[MAXIMUM], job->moments.max);
}

/* Count one by one: few elements, for which tables do not pay, or an axis with more bins than codes. */
static void count_singly(const struct plan *plan, const struct source *source, int64_t n, const struct target *target)
{
    struct job job;
    struct cursor cursor;
    float_mode mode = keep_subnormals();
    start_job(&job, plan, source);
    job.end = n;
    place_cursor(&cursor, source, 0);
    for (int64_t at = 0; at < n; ++at) {
        int64_t code = note_value(plan, load(cursor.address, source->dtype), &job);
        if (code >= 0)
            ++*counter_of(target->row, plan->axis->bins, code);
        advance_cursor(&cursor, 1);
    }
    restore_float_mode(mode);
    finish_job(&job, target->row, target->moments);
}

/* Count elements begin ... end - 1 in `threads` equal shares of whole blocks, with tables for each. */
static void count_in_blocks(const struct plan *plan, const struct source *source, int64_t begin, int64_t end,
                            int threads, table_counter *tables, const struct target *target)
{
    struct job jobs[MAX_THREADS];
    struct team team = {levels[target->level].count, jobs, 0, 0};
    const size_t width = table_width(plan->axis);
    int64_t share = (end - begin + threads - 1) / threads;
    share = (share + BLOCK - 1) / BLOCK * BLOCK;
    for (; begin < end; begin += share) {
        struct job *job = &jobs[team.size];
        start_job(job, plan, source);
        job->begin = begin;
        job->end = end - begin < share ? end : begin + share;
        job->tables = tables + (size_t)team.size * TABLES * width;
        job->width = width;
        ++team.size;
    }
    if (team.size == 1) {
        float_mode mode = keep_subnormals();
        memset(tables, 0, TABLES * width * sizeof *tables);
        team.count(jobs);
        fold_tables(jobs, TABLES, target->row);
        restore_float_mode(mode);
    } else {
        target->run(work, &team, (unsigned)team.size, 0);
        for (int i = 0; i < team.size; ++i)
            fold_tables(&jobs[i], 1, target->row);
    }
    for (int i = 0; i < team.size; ++i)
        finish_job(&jobs[i], target->row, target->moments);
}

static const int itemsizes[] = {4, 8, 2, 2};

/* Count all elements. Return 0, the row unchanged, if there is no memory. */
static int count(const struct target *target, const struct source *source, int64_t n, int threads)
{
    enum { SMALL_WIDTH = 1200 };
    const struct plan plan = plan_for(target->axis);
    const size_t width = table_width(plan.axis);
    table_counter small[TABLES * SMALL_WIDTH], *tables = small;
    if (n <= 64 || n <= plan.axis->bins / 16 || plan.axis->bins > MAX_TABLE_BINS || !levels[target->level].count) {
        count_singly(&plan, source, n, target);
        return 1;
    }
    threads = threads < 1 || !target->run ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    if (threads > 1 || width > SMALL_WIDTH)
        tables = malloc((size_t)threads * TABLES * width * sizeof *tables);
    if (!tables)
        return 0;
    const int64_t round = threads * ROUND_ELEMENTS;
    for (int64_t begin = 0; begin < n; begin += round)
        count_in_blocks(&plan, source, begin, n - begin < round ? n : begin + round, threads, tables, target);
    if (tables != small)
        free(tables);
    return 1;
}

/* The interface version, to tell a library that was left over from another version. */
EXPORT int colordim_interface(void)
{
    return INTERFACE;
}

/* Write the code of each of the 65,536 numbers of a dtype of 16 bits, for axes of at most MAX_TABLE_BINS bins. */
EXPORT void colordim_encode_halves(const struct axis *axis, int dtype, uint16_t *codes)
{
    const struct plan plan = plan_for(axis);
    float_mode mode = keep_subnormals();
    for (int pattern = 0; pattern < 1 << 16; ++pattern) {
        double x = value_of_half((uint16_t)pattern, (enum dtype)dtype);
        codes[pattern] = (uint16_t)(x == 0 ? plan.spares[0] : code_of(&plan, x));
    }
    restore_float_mode(mode);
}

/* Count n elements that lie one after the other. */
EXPORT int colordim_count(const struct target *target, const char *data, int64_t n, int dtype, int threads)
{
    static const int64_t one = 1;
    struct source source = {data, (enum dtype)dtype, itemsizes[dtype], 1, &n, &one};
    return count(target, &source, n, threads);
}

/* Count the elements of `dims` dimensions (1 to MAX_DIMS), none of them empty; strides in elements. */
EXPORT int colordim_count_strided(const struct target *target, const char *data, int dims, const int64_t *sizes,
                                  const int64_t *strides, int dtype, int threads)
{
    struct source source = {data, (enum dtype)dtype, itemsizes[dtype], dims, sizes, strides};
    int64_t n = 1;
    for (int d = 0; d < dims; ++d)
        n *= sizes[d];
    return count(target, &source, n, threads);
}

/* Set active[unit] to 1 for each unit with an element of magnitude 2**min_exponent or more, or NaN. The elements are
 * those of dimensions [outer, units, inner], one after the other. Return how many units are not active now. */
EXPORT int64_t colordim_mark_active(const char *data, int64_t outer, int64_t units, int64_t inner, int dtype,
                                    int min_exponent, int level, uint8_t *active)
{
    return levels[level].mark(data, outer, units, inner, (enum dtype)dtype, min_exponent, active);
}
