// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Clang's thread-safety annotations on locks and guarded members. The clang build checks them;
// other compilers ignore them.
#pragma once

#if defined(__clang__)
#define MOAT_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define MOAT_THREAD_ANNOTATION(x)
#endif

#define MOAT_CAPABILITY(name) MOAT_THREAD_ANNOTATION(capability(name))
#define MOAT_SCOPED_CAPABILITY MOAT_THREAD_ANNOTATION(scoped_lockable)
#define MOAT_GUARDED_BY(lock) MOAT_THREAD_ANNOTATION(guarded_by(lock))
#define MOAT_REQUIRES(...) MOAT_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define MOAT_REQUIRES_SHARED(...) MOAT_THREAD_ANNOTATION(requires_shared_capability(__VA_ARGS__))
#define MOAT_EXCLUDES(...) MOAT_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define MOAT_ACQUIRE(...) MOAT_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define MOAT_ACQUIRE_SHARED(...) MOAT_THREAD_ANNOTATION(acquire_shared_capability(__VA_ARGS__))
#define MOAT_RELEASE(...) MOAT_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define MOAT_RELEASE_SHARED(...) MOAT_THREAD_ANNOTATION(release_shared_capability(__VA_ARGS__))
#define MOAT_TRY_ACQUIRE(...) MOAT_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define MOAT_NO_THREAD_SAFETY_ANALYSIS MOAT_THREAD_ANNOTATION(no_thread_safety_analysis)
