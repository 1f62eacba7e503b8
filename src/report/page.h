/* page.h - the page's style sheet, apart from the code that fills the page. Internal to this folder. */
#ifndef CAB_REPORT_PAGE_H
#define CAB_REPORT_PAGE_H

/* CSS for light and dark, screen and paper. */
extern const char cab_page_style[];

#endif
